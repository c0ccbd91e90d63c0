// SPDX-License-Identifier: GPL-2.0

//! Allocators and users of the pages of a pagemap.

#[cfg(doc)]
use super::Pagemap;
use super::{
    DeviceFolio,
    FreeFolio, //
};
use crate::{
    mm::block_map::Block,
    prelude::*,
    sync::atomic::{
        Atomic,
        Relaxed, //
    }, //
};
#[cfg(doc)]
use crate::{
    mm::block_map::BlockMap,
    sync::aref::ARef, //
};
use core::{
    marker::PhantomData,
    ptr, //
};

/// A driver's allocator for the pages of a [`Pagemap`].
///
/// [`Pagemap::alloc`] takes pages from the allocator and makes a folio of them. When the last
/// reference to the folio has been dropped, the pagemap passes it to [`Self::folio_free`] as a
/// [`FreeFolio`]. When that is dropped, the pagemap returns the pages to the allocator by
/// [`Self::free`].
///
/// The pagemap is released when the device is unbound. The release waits until all folios have
/// returned, and drops the allocator after that. So an allocator must not keep an
/// [`ARef<DeviceFolio>`] of its own pagemap, and may keep a [`FreeFolio`] for a limited time only:
/// the release would wait forever.
///
/// # Examples
///
/// The allocator of a device that caches data about its pages. A page is free only after the device
/// has invalidated its cache, which takes a while:
///
/// ```
/// use kernel::{
///     memremap::{
///         FreeFolio,
///         PageAllocator, //
///     },
///     mm::block_map::{
///         Block,
///         BlockMap, //
///     },
///     prelude::*, //
/// };
///
/// struct Pages(BlockMap);
///
/// # fn invalidate(_first: usize) {}
/// impl PageAllocator for Pages {
///     fn alloc(&self, order: u32) -> Option<Block> {
///         self.0.alloc_up_to(order)
///     }
///
///     fn free(&self, block: Block) {
///         let _ = self.0.free(block);
///     }
///
///     fn folio_free(&self, folio: FreeFolio) {
///         folio.defer();
///     }
///
///     fn folio_free_deferred(&self, folio: &mut FreeFolio) {
///         invalidate(folio.block().first());
///         folio.clear();
///     }
/// }
/// ```
pub trait PageAllocator: Send + Sync + 'static {
    /// Whether the kernel may clear pages that are free: from the moment at which the last
    /// [`FreeFolio`] of them is dropped, before it calls [`Self::free`], until [`Pagemap::alloc`]
    /// returns the folio that it has made of them. If so, memory can be cleared after its user has
    /// gone, not only when it is allocated again.
    ///
    /// This must be false if the processor must not access memory that has been freed, or if the
    /// device or the driver uses such memory for something else. Leave it false, too, if
    /// [`Self::alloc`] or [`Self::free`] write to the memory.
    const ACCESS_FREE: bool = false;

    /// Takes a block of free pages, of the given order if possible, else of a smaller order.
    ///
    /// Pages are counted from the start of the pagemap. [`Pagemap::alloc`] fails with `EBUSY` if
    /// one of the pages is in use.
    ///
    /// May sleep. The task may hold the `mmap_lock` for writing, and unbinding the device may wait
    /// for this function. So it must neither access user memory nor take the lock of a device.
    fn alloc(&self, order: u32) -> Option<Block>;

    /// Frees a block of pages.
    ///
    /// This may be called in any context except NMI: by any code that drops the last reference to a
    /// folio, for example the completion handler of a bio in a hard interrupt, or code that has
    /// interrupts disabled even on `PREEMPT_RT`. It must not sleep. It must not take a lock that
    /// sleeps on `PREEMPT_RT`, nor a lock that other code holds with interrupts enabled.
    /// [`BlockMap::free`] complies.
    fn free(&self, block: Block);

    /// Called when the last reference to a folio has been dropped.
    ///
    /// The restrictions of [`Self::free`] apply. Work that sleeps or takes long belongs into
    /// [`Self::folio_free_deferred`], see [`FreeFolio::defer`].
    fn folio_free(&self, folio: FreeFolio) {
        drop(folio);
    }

    /// Called by a workqueue for a folio that [`Self::folio_free`] has deferred. The folio is
    /// dropped when this returns.
    ///
    /// May sleep. It is called for one folio after another. Unbinding the device waits for it, so
    /// it must not take the lock of the device.
    fn folio_free_deferred(&self, _folio: &mut FreeFolio) {}
}

/// The allocator that is built into each [`Pagemap`], for drivers that do not bring their own.
pub struct BuiltIn;

impl PageAllocator for BuiltIn {
    const ACCESS_FREE: bool = true;

    fn alloc(&self, _order: u32) -> Option<Block> {
        None
    }

    fn free(&self, _block: Block) {}
}

/// Identifies a user of the memory of pagemaps.
///
/// [`Pagemap::alloc`] does not clear memory for the user that was the last to use it.
///
/// # Invariants
///
/// No two values that [`UserId::unique`] has returned are equal.
///
/// # Examples
///
/// ```
/// use kernel::memremap::UserId;
///
/// assert!(UserId::unique() != UserId::unique());
/// ```
#[derive(Copy, Clone, PartialEq, Eq)]
pub struct UserId(usize);

impl UserId {
    /// Returns the id of a new user.
    pub fn unique() -> Self {
        // Start at 1, as 0 is `Contents::UNKNOWN`.
        static NEXT: Atomic<usize> = Atomic::new(1);

        // INVARIANT: `PCI_P2PDMA` depends on `64BIT`, and no machine counts to 2^64. So the values
        // do not repeat, and none equals `Contents::CLEAR`.
        Self(NEXT.fetch_add(1, Relaxed))
    }
}

/// What a folio holds: zeros, the data of a user, or something unknown. The pagemap stores this in
/// the field `zone_device_data` of the first `struct page`.
#[derive(Copy, Clone, PartialEq, Eq)]
pub(crate) struct Contents(usize);

impl Contents {
    /// Not known. This is the initial value of the word, and what `zone_device_folio_recycle()`
    /// returns for pages whose words differ.
    pub(super) const UNKNOWN: Self = Self(0);
    /// Zeros.
    pub(super) const CLEAR: Self = Self(usize::MAX);

    pub(crate) fn from_word<T>(word: *mut T) -> Self {
        Self(word.addr())
    }

    pub(crate) fn into_word<T>(self) -> *mut T {
        ptr::without_provenance_mut(self.0)
    }

    /// Clears `folio`, which holds this, unless `user` may see it.
    pub(crate) fn prepare(self, folio: &DeviceFolio, user: UserId) {
        if self != user.into() && self != Self::CLEAR {
            folio.clear();
        }
    }
}

impl From<UserId> for Contents {
    /// What that user left there.
    fn from(user: UserId) -> Self {
        Self(user.0)
    }
}

/// The methods of an allocator, for [`Base`], which is not generic over the type of the allocator.
pub(super) struct AllocatorTable {
    pub(super) free: unsafe fn(*const c_void, Block),
    pub(super) folio_free: unsafe fn(*const c_void, FreeFolio),
    pub(super) folio_free_deferred: unsafe fn(*const c_void, &mut FreeFolio),
}

/// Holds the table of `A`. The first argument of its functions must point to a valid `A`.
pub(super) struct TableOf<A>(PhantomData<A>);

impl<A: PageAllocator> TableOf<A> {
    pub(super) const TABLE: AllocatorTable = AllocatorTable {
        free: |allocator, block| {
            // SAFETY: The caller promises that this is a valid `A`.
            unsafe { &*allocator.cast::<A>() }.free(block)
        },
        folio_free: |allocator, folio| {
            // SAFETY: The caller promises that this is a valid `A`.
            unsafe { &*allocator.cast::<A>() }.folio_free(folio)
        },
        folio_free_deferred: |allocator, folio| {
            // SAFETY: The caller promises that this is a valid `A`.
            unsafe { &*allocator.cast::<A>() }.folio_free_deferred(folio)
        },
    };
}
