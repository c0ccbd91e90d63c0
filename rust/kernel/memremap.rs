// SPDX-License-Identifier: GPL-2.0

//! Device memory with `struct page`s.
//!
//! A [`Pagemap`] gives `struct page`s to memory that is not RAM, such as that behind a BAR of a PCI
//! device. Which of its pages are in use is up to the driver: it hands them out as [`Folio`]s, and
//! gets them back as [`FreeFolio`]s once the last reference is gone, be it one that the driver
//! held, a mapping in user space, or DMA by another device.
//!
//! Pagemaps of peer-to-peer DMA memory, which are the only ones so far, are made by
//! [`pci::Device::p2pdma_add_pagemap`](crate::pci::Device::p2pdma_add_pagemap).
//!
//! C header: [`include/linux/memremap.h`](srctree/include/linux/memremap.h)
//!
//! # Examples
//!
//! A driver that hands out clear memory, of a device which may have cached things about its pages:
//! these are free only after it has forgotten them, which takes a while.
//!
//! ```
//! use kernel::{
//!     memremap::{
//!         CacheMode,
//!         FreeFolio,
//!         Pagemap,
//!         PagemapOps,
//!         PagemapRef,
//!         UserId, //
//!     },
//!     mm::{
//!         block_map::BlockMap,
//!         Folio, //
//!     },
//!     prelude::*,
//!     sync::aref::ARef, //
//! };
//!
//! struct Pages {
//!     map: BlockMap,
//!     has_cache: bool,
//! }
//!
//! impl Pages {
//!     /// Takes back the pages, which nobody else gets before `folio` is dropped.
//!     fn free(&self, folio: FreeFolio) {
//!         let block = folio.block();
//!
//!         drop(folio);
//!         let _ = self.map.free(block);
//!     }
//! }
//!
//! # fn invalidate(_first: usize) {}
//! impl PagemapOps for Pages {
//!     // In any context: this may be an interrupt.
//!     fn folio_free(&self, folio: FreeFolio) {
//!         if self.has_cache {
//!             folio.defer();
//!         } else {
//!             self.free(folio);
//!         }
//!     }
//!
//!     // In that of a workqueue.
//!     fn folio_free_deferred(&self, folio: FreeFolio) {
//!         invalidate(folio.block().first());
//!         // So that whoever is the next need not wait for that.
//!         folio.clear();
//!         self.free(folio);
//!     }
//! }
//!
//! /// Memory that is allocated by the driver, for somebody.
//! fn alloc(pagemap: &Pagemap<Pages>, user: UserId) -> Result<ARef<Folio>> {
//!     let block = pagemap.data().map.alloc(0).ok_or(ENOSPC)?;
//!
//!     pagemap.hand_out_clean(block, user).inspect_err(|_| {
//!         let _ = pagemap.data().map.free(block);
//!     })
//! }
//!
//! /// Whether there is memory left.
//! fn has_room(pagemap: &Pagemap<Pages>) -> bool {
//!     pagemap.nr_used() < pagemap.nr_pages()
//! }
//!
//! /// For whoever maps it.
//! fn raw(pagemap: &Pagemap<Pages>) -> PagemapRef<'_> {
//!     dev_dbg!(pagemap.device(), "mapping memory\n");
//!     pagemap.as_pagemap_ref()
//! }
//!
//! // Nobody is anybody else, and memory is mapped in one of two ways.
//! assert!(UserId::unique() != UserId::unique());
//! assert_ne!(CacheMode::Uncached, CacheMode::WriteCombine);
//! ```

use crate::{
    bindings,
    container_of,
    device,
    error::from_err_ptr,
    mm::{
        block_map::{
            Block,
            BlockMap, //
        },
        folio::clear_mmio,
        Folio, //
    },
    page::PAGE_SHIFT,
    pci::p2pdma::has_pagemap,
    prelude::*,
    static_lock_class,
    sync::{
        aref::ARef,
        atomic::{
            Acquire,
            Atomic,
            Relaxed,
            Release, //
        },
    },
    types::Opaque, //
};
use core::{
    marker::PhantomData,
    mem,
    ops::Range,
    ptr::{
        self,
        NonNull, //
    },
};

/// How the processor accesses the memory of a pagemap.
///
/// This goes for the kernel's mapping and for those of user space: on some architectures it is an
/// error to map the same memory in two ways.
#[derive(Copy, Clone, Debug, Eq, PartialEq)]
pub enum CacheMode {
    /// Each access is done as it stands, in order: `pgprot_noncached()`.
    Uncached,

    /// Writes may be combined and delayed: `pgprot_writecombine()`. For memory only, that is,
    /// prefetchable BARs.
    WriteCombine,
}

/// The driver's part of a [`Pagemap`].
///
/// It must not keep a [`FreeFolio`] or an [`ARef<Folio>`] of that pagemap: when the device is
/// unbound, these are waited for, and only then is this dropped.
pub trait PagemapOps: Send + Sync + 'static {
    /// Takes back a folio whose last reference is gone.
    ///
    /// This may be called in any context but NMI: whoever drops the last reference runs it, which
    /// may be the completion of a bio in a hard interrupt, or a section of code that has interrupts
    /// disabled even on `PREEMPT_RT`. It must not sleep, nor take a lock that sleeps on
    /// `PREEMPT_RT` or that others hold with interrupts enabled. [`BlockMap::free`] suits.
    ///
    /// Whatever takes longer is for [`Self::folio_free_deferred`], see [`FreeFolio::defer`].
    fn folio_free(&self, folio: FreeFolio);

    /// Takes back a folio that [`Self::folio_free`] has deferred.
    ///
    /// May sleep. Called by one thread at a time. The pagemap, and with it the unbinding of the
    /// device, waits for it, so it must not take the lock of the device. If it defers the folio
    /// again, it is called again after others have had their turn.
    fn folio_free_deferred(&self, folio: FreeFolio) {
        drop(folio);
    }
}

/// The largest order of the folios that can be made.
// Larger ones need a start that is aligned to their size in physical memory, and not just in the
// pagemap.
const MAX_ORDER: u32 = 0;

/// Who uses folios, for [`Pagemap::hand_out_clean`].
///
/// # Invariants
///
/// No two values that [`UserId::unique`] has returned are equal.
#[derive(Copy, Clone, PartialEq, Eq)]
pub struct UserId(u64);

/// In the place of a [`UserId`]: there may be anything in the memory.
const SOMEBODY: u64 = 0;
/// In the place of a [`UserId`]: the memory is clear.
const NOBODY: u64 = u64::MAX;

impl UserId {
    /// Returns the id of somebody new.
    // It is neither `SOMEBODY` nor `NOBODY`.
    pub fn unique() -> Self {
        static NEXT: Atomic<u64> = Atomic::new(1);

        // INVARIANT: No machine gets through 64 bits.
        Self(NEXT.fetch_add(1, Relaxed))
    }
}

/// The part of a pagemap that does not depend on the driver.
///
/// # Invariants
///
/// - `raw` is a `struct dev_pagemap` of the pages from `first_pfn` on, of type
///   `MEMORY_DEVICE_PCI_P2PDMA`, that `memremap_pages()` has set up, and that `memunmap_pages()` is
///   called for when `self` is dropped, but not before.
/// - `out` has a unit for each page. The unit is in use if and only if its page belongs to a folio
///   with references, or to a [`FreeFolio`], or to the list `deferred`, or to a call of
///   [`Base::hand_out`].
/// - For each of the pages that are in use, but for such calls, `raw.ref` is held once.
/// - `users` has an element for each page: the [`UserId`] of who has been handed it out last,
///   [`NOBODY`] if it has been cleared since, or [`SOMEBODY`] if it is not known what it holds.
/// - `deferred` is the first of a list of folios, linked by the `zone_device_data` of their first
///   pages, none of which has any references. `work` is what passes them on; it is embedded, so
///   that queueing it takes neither memory nor a reference.
/// - `data` points to the `data` of the [`Pagemap<T>`] that `self` is part of, and `free` and
///   `free_deferred` are [`call_folio_free`] and [`call_folio_free_deferred`] of that `T`.
#[pin_data(PinnedDrop)]
struct Base {
    #[pin]
    raw: Opaque<bindings::dev_pagemap>,
    #[pin]
    work: Opaque<bindings::work_struct>,
    deferred: Atomic<*mut bindings::folio>,
    first_pfn: usize,
    out: BlockMap,
    users: VVec<Atomic<u64>>,
    free: unsafe fn(*const c_void, FreeFolio),
    free_deferred: unsafe fn(*const c_void, FreeFolio),
    data: *const c_void,
}

/// All pagemaps share these: what differs is found through [`Base`].
static OPS: bindings::dev_pagemap_ops = bindings::dev_pagemap_ops {
    folio_free: Some(folio_free_callback),
    migrate_to_ram: None,
    memory_failure: None,
    ..pin_init::zeroed()
};

/// Called by `free_zone_device_folio()`.
///
/// This and [`deferred_callback`] are not generic, so that no code of a module runs after the last
/// reference to the pagemap has been put.
///
/// # Safety
///
/// `folio` must be a folio of a pagemap that is part of a [`Base`], and whose reference count has
/// just become 0.
unsafe extern "C" fn folio_free_callback(folio: *mut bindings::folio) {
    // SAFETY: `folio` is a valid folio of device memory, and starts with its first page.
    let pgmap = unsafe { bindings::page_pgmap(folio.cast()) };
    // SAFETY: By the safety requirements, `pgmap` is the field `raw` of a `Base`.
    let base = unsafe { container_of!(Opaque::cast_from(pgmap), Base, raw) };

    // SAFETY: The folio has no references any more, and this is the only call for that. It is one
    // of `base`, and its pages hold references to the pagemap.
    unsafe { Base::give_back(NonNull::new_unchecked(base.cast_mut()), folio, false) };
}

/// The work of a [`Base`]: passes on all folios that have been deferred.
///
/// # Safety
///
/// `work` must be the field `work` of a [`Base`], which must stay valid for the duration of the
/// call.
unsafe extern "C" fn deferred_callback(work: *mut bindings::work_struct) {
    // SAFETY: By the safety requirements.
    let base = unsafe { &*container_of!(Opaque::cast_from(work), Base, work) };

    // Pairs with the release in `FreeFolio::defer`. For those that are deferred from now on, the
    // work is queued again.
    let mut folio = base.deferred.xchg(ptr::null_mut(), Acquire);

    while !folio.is_null() {
        // SAFETY: By the type invariant, `folio` is one without references. It has been taken off
        // the list, and thus is ours.
        let next = unsafe { next_deferred(folio) };

        // SAFETY: The same. The pages of the folio hold references to the pagemap.
        unsafe { Base::give_back(NonNull::from(base), folio, true) };
        folio = next;
    }
}

/// Returns the one that follows in the list of deferred folios.
///
/// # Safety
///
/// `folio` must be one without references of a [`Base`], that is ours.
unsafe fn next_deferred(folio: *mut bindings::folio) -> *mut bindings::folio {
    let page: *mut bindings::page = folio.cast();

    // SAFETY: This is a page of device memory, and the field is for its driver.
    unsafe { (*page).__bindgen_anon_1.__bindgen_anon_4.zone_device_data }.cast()
}

/// Sets the one that follows in the list of deferred folios.
///
/// # Safety
///
/// The same as those of [`next_deferred`].
unsafe fn set_next_deferred(folio: *mut bindings::folio, next: *mut bindings::folio) {
    let page: *mut bindings::page = folio.cast();

    // SAFETY: This is a page of device memory, and the field is for its driver.
    unsafe { (*page).__bindgen_anon_1.__bindgen_anon_4.zone_device_data = next.cast() };
}

/// Calls `T::folio_free`.
///
/// # Safety
///
/// `data` must point to a valid `T`.
unsafe fn call_folio_free<T: PagemapOps>(data: *const c_void, folio: FreeFolio) {
    // SAFETY: By the safety requirements.
    unsafe { &*data.cast::<T>() }.folio_free(folio);
}

/// Calls `T::folio_free_deferred`.
///
/// # Safety
///
/// `data` must point to a valid `T`.
unsafe fn call_folio_free_deferred<T: PagemapOps>(data: *const c_void, folio: FreeFolio) {
    // SAFETY: By the safety requirements.
    unsafe { &*data.cast::<T>() }.folio_free_deferred(folio);
}

impl Base {
    /// Sets up a pagemap.
    ///
    /// # Safety
    ///
    /// - `owner` must be the provider of a BAR, in the memory of which `range`, in bytes of
    ///   physical address, lies, and both must stay valid for as long as the result does.
    /// - Start and size of `range` must be aligned to `memremap_compat_align()`, and the size must
    ///   not be 0. No other pagemap may have any of its memory, apart from one that was made since
    ///   by the initialiser of the driver's part, under the lock of the device.
    /// - `data` must point to where a `T` is by the time that the initialiser runs, and which stays
    ///   there for as long as the result does.
    unsafe fn new<T: PagemapOps>(
        owner: NonNull<bindings::p2pdma_provider>,
        range: Range<u64>,
        mode: CacheMode,
        node: c_int,
        data: *const T,
    ) -> impl PinInit<Self, Error> {
        // CAST: `PCI_P2PDMA` depends on `64BIT`.
        let first_pfn = (range.start >> PAGE_SHIFT) as usize;
        let nr_pages = ((range.end - range.start) >> PAGE_SHIFT) as usize;

        try_pin_init!(Self {
            out: BlockMap::new(nr_pages, GFP_KERNEL)?,
            users: {
                let mut users = VVec::with_capacity(nr_pages, GFP_KERNEL)?;

                for _ in 0..nr_pages {
                    users.push(Atomic::new(SOMEBODY), GFP_KERNEL)?;
                }
                users
            },
            deferred: Atomic::new(ptr::null_mut()),
            first_pfn,
            free: call_folio_free::<T>,
            free_deferred: call_folio_free_deferred::<T>,
            data: data.cast(),
            work <- Opaque::ffi_init(|work| {
                // SAFETY: `work` is where a `struct work_struct` is to be, and pinned.
                unsafe {
                    bindings::init_work_with_key(
                        work,
                        Some(deferred_callback),
                        false,
                        c"pagemap_deferred".as_char_ptr(),
                        static_lock_class!().as_ptr(),
                    )
                };
            }),
            // The last one, as from then on there is something to undo.
            raw <- Opaque::try_ffi_init(move |raw: *mut bindings::dev_pagemap| {
                // SAFETY: `raw` points to memory for a `struct dev_pagemap`, which may be zero.
                unsafe { raw.write_bytes(0, 1) };
                // SAFETY: `raw` is valid for writes, and nobody else knows it yet.
                let pgmap = unsafe { &mut *raw };

                pgmap.type_ = bindings::memory_type_MEMORY_DEVICE_PCI_P2PDMA;
                if mode == CacheMode::WriteCombine {
                    pgmap.flags = bindings::PGMAP_WRITECOMBINE;
                }
                pgmap.owner = owner.as_ptr().cast();
                pgmap.ops = &raw const OPS;
                pgmap.nr_range = 1;
                // SAFETY: With `nr_range` 1, this is the field of the union that counts.
                *unsafe { pgmap.__bindgen_anon_1.range.as_mut() } = bindings::range {
                    start: range.start,
                    end: range.end - 1,
                };
                // Once more: the initialiser of the driver's part may have added memory.
                if has_pagemap(range) {
                    return Err(EBUSY);
                }
                // SAFETY: `raw` is initialised as the function wants, and pinned.
                from_err_ptr(unsafe { bindings::memremap_pages(raw, node) })?;
                Ok::<(), Error>(())
            }),
        }? Error)
    }

    /// Returns the reference count that keeps the pagemap.
    fn ref_(&self) -> *mut bindings::percpu_ref {
        // SAFETY: `self.raw` is a valid `struct dev_pagemap`; no reference to it is created.
        unsafe { &raw mut (*self.raw.get()).ref_ }
    }

    /// Makes a folio of the pages of `block`, for `user`.
    ///
    /// The flag tells whether the memory holds what somebody else left there.
    fn hand_out(&self, block: Block, user: Option<UserId>) -> Result<(ARef<Folio>, bool)> {
        if block.order() > MAX_ORDER {
            return Err(EINVAL);
        }
        self.out.claim(block)?;

        let user = user.map_or(SOMEBODY, |id| id.0);
        let mut dirty = false;
        for page in block.range() {
            // What was written here before the page was freed is seen: claiming it has acquire
            // semantics.
            if let Some(last) = self.users.get(page) {
                dirty |= ![user, NOBODY].contains(&last.load(Relaxed));
                last.store(user, Relaxed);
            }
        }

        // OVERFLOW: By the type invariant, this is the number of a page.
        let pfn = self.first_pfn + block.first();
        // SAFETY: By the type invariant, this is the number of a page of the pagemap, which has a
        // `struct page` for as long as `self` is there.
        let folio = unsafe { bindings::pfn_to_page(pfn) }.cast::<bindings::folio>();

        // INVARIANT: The function takes a reference to the pagemap for each page. It can: they are
        // there until `self` is dropped.
        //
        // SAFETY: All pages of the block are ours: they are in no folio, and nobody else will turn
        // them into one, as we have claimed them. The function returns with the folio locked, but
        // whoever marks it dirty after DMA would wait for the lock.
        unsafe {
            bindings::zone_device_folio_init(folio, self.raw.get(), block.order());
            bindings::folio_unlock(folio);
        }

        // SAFETY: `folio` is a valid folio now, with one reference, which is ours.
        let folio = unsafe { ARef::from_raw(NonNull::new_unchecked(folio.cast::<Folio>())) };
        Ok((folio, dirty))
    }

    /// Passes a folio without references on to the driver.
    ///
    /// The pagemap may be gone when this returns. That is why it takes no reference to it.
    ///
    /// # Safety
    ///
    /// - `folio` must be one of the pagemap of `this`, without references, and nobody else may know
    ///   it.
    /// - Its pages must hold references to the pagemap, which are given up.
    unsafe fn give_back(this: NonNull<Self>, folio: *mut bindings::folio, deferred: bool) {
        // SAFETY: The pages of the folio hold references to the pagemap.
        let base = unsafe { this.as_ref() };
        // SAFETY: `folio` is a valid folio.
        let (pfn, order) = unsafe { (bindings::folio_pfn(folio), bindings::folio_order(folio)) };
        let Some(block) = Block::new(pfn.wrapping_sub(base.first_pfn), order) else {
            // It was made of a block with this very start and order.
            return;
        };
        let (ref_, data) = (base.ref_(), base.data);
        let to = if deferred {
            base.free_deferred
        } else {
            base.free
        };

        // The driver may be done with `FreeFolio` before it returns.
        //
        // SAFETY: The pages of the folio hold references to the pagemap.
        unsafe { bindings::percpu_ref_get(ref_) };
        // INVARIANT: By the safety requirements.
        let free = FreeFolio { base: this, block };
        // SAFETY: By the type invariant, `data` is what `to` wants.
        unsafe { to(data, free) };
        // SAFETY: We have got a reference.
        unsafe { bindings::percpu_ref_put(ref_) };
    }
}

#[pinned_drop]
impl PinnedDrop for Base {
    fn drop(self: Pin<&mut Self>) {
        // SAFETY: By the type invariant, the pagemap is set up. This sleeps until all references
        // are gone that `self.out` tells of.
        unsafe { bindings::memunmap_pages(self.raw.get()) };
        // There is no folio left, but who has put the last reference may be the work, which then
        // looks for more.
        //
        // SAFETY: The work has been initialised.
        unsafe { bindings::flush_work(self.work.get()) };
    }
}

/// A `struct dev_pagemap`: device memory whose pages the driver hands out.
///
/// It is there until the device has been unbound, see
/// [`pci::Device::p2pdma_add_pagemap`](crate::pci::Device::p2pdma_add_pagemap). Then the pagemap
/// waits for all folios that have been handed out to come back, and for all [`FreeFolio`]s to be
/// dropped; a driver must not hold on to them for longer than it is bound.
///
/// # Invariants
///
/// `base.data` points to `data`.
#[pin_data]
pub struct Pagemap<T: PagemapOps> {
    // Must be declared before `data`: once it is dropped, nobody calls `T` any more.
    #[pin]
    base: Base,
    #[pin]
    data: T,
    dev: ARef<device::Device>,
}

// SAFETY: `Base` may be used and dropped by any thread: `memunmap_pages()` is not bound to the one
// that set it up. `T` is `Send`.
unsafe impl<T: PagemapOps> Send for Pagemap<T> {}

// SAFETY: The fields of `Base` either do not change, or are atomic, or are C structures that are
// used by functions which threads may call at the same time. `T` is `Sync`.
unsafe impl<T: PagemapOps> Sync for Pagemap<T> {}

impl<T: PagemapOps> Pagemap<T> {
    /// Gives `struct page`s to memory of a BAR.
    ///
    /// # Safety
    ///
    /// - `owner` must be the provider of a BAR of `dev`, in the memory of which `range`, in bytes
    ///   of physical address, lies, and both must stay valid for as long as the result does.
    /// - Start and size of `range` must be aligned to `memremap_compat_align()`, and the size must
    ///   not be 0. No other pagemap may have any of its memory, which the lock of `dev` has to see
    ///   to, apart from one that the initialiser of the driver's part makes.
    pub(crate) unsafe fn new<E>(
        owner: NonNull<bindings::p2pdma_provider>,
        range: Range<u64>,
        mode: CacheMode,
        dev: &device::Device,
        data: impl PinInit<T, E>,
    ) -> impl PinInit<Self, Error>
    where
        Error: From<E>,
    {
        // SAFETY: `dev.as_raw()` is a valid pointer to a `struct device`.
        let node = unsafe { bindings::dev_to_node(dev.as_raw()) };
        let dev = ARef::from(dev);

        try_pin_init!(&this in Self {
            dev,
            data <- data,
            // SAFETY: The requirements for `owner` and `range` are the caller's. `data` has just
            // been initialised, is pinned, and is dropped after `base`.
            base <- unsafe {
                Base::new(owner, range, mode, node, &raw const (*this.as_ptr()).data)
            },
        }? Error)
    }

    /// Returns the device whose memory this is.
    #[inline]
    pub fn device(&self) -> &device::Device {
        &self.dev
    }

    /// Returns the driver's part.
    #[inline]
    pub fn data(&self) -> &T {
        &self.data
    }

    /// Returns the number of pages.
    #[inline]
    pub fn nr_pages(&self) -> usize {
        self.base.out.len()
    }

    /// Returns the number of pages that have been handed out, and not come back.
    ///
    /// It is as exact as [`BlockMap::used`].
    #[inline]
    pub fn nr_used(&self) -> usize {
        self.base.out.used()
    }

    /// Makes a folio of a block of pages, counted from the start of the pagemap.
    ///
    /// The folio has one reference, which is the caller's. Which blocks to hand out is up to the
    /// driver, and no call is too many: pages that are in use are refused.
    ///
    /// The memory is as its last user has left it.
    ///
    /// C function: `zone_device_folio_init()`. May sleep.
    ///
    /// # Errors
    ///
    /// - `EINVAL` if the block lies outside of the pagemap, or is larger than a page: larger folios
    ///   are not supported yet.
    /// - `EBUSY` if one of the pages is part of a folio, or of a [`FreeFolio`].
    pub fn hand_out(&self, block: Block) -> Result<ARef<Folio>> {
        self.base.hand_out(block, None).map(|(folio, _)| folio)
    }

    /// The same as [`Self::hand_out`], for `user`: memory is cleared unless it was handed out for
    /// the same user before, and for nobody else since.
    ///
    /// May sleep.
    pub fn hand_out_clean(&self, block: Block, user: UserId) -> Result<ARef<Folio>> {
        let (folio, dirty) = self.base.hand_out(block, Some(user))?;

        if dirty {
            folio.clear();
        }
        Ok(folio)
    }

    /// Returns a reference to the pagemap, for [`VmaDesc::set_p2pdma_ops`].
    ///
    /// [`VmaDesc::set_p2pdma_ops`]: crate::mm::virt::VmaDesc::set_p2pdma_ops
    #[inline]
    pub fn as_pagemap_ref(&self) -> PagemapRef<'_> {
        // SAFETY: By the type invariant of `Base`, this is set up, and it lives as long as `self`.
        unsafe { PagemapRef::from_raw(NonNull::new_unchecked(self.base.raw.get())) }
    }
}

/// A reference to a pagemap of peer-to-peer DMA memory, whoever made it.
///
/// # Invariants
///
/// The pointer is to a `struct dev_pagemap` of type `MEMORY_DEVICE_PCI_P2PDMA` that has been set
/// up, and is valid for `'a`, like its owner.
#[derive(Copy, Clone)]
pub struct PagemapRef<'a>(NonNull<bindings::dev_pagemap>, PhantomData<&'a ()>);

impl PagemapRef<'_> {
    /// # Safety
    ///
    /// `raw` must be a `struct dev_pagemap` of type `MEMORY_DEVICE_PCI_P2PDMA` that has been set
    /// up, and stays valid, like its owner, for the lifetime of the result.
    pub(crate) unsafe fn from_raw(raw: NonNull<bindings::dev_pagemap>) -> Self {
        // INVARIANT: By the safety requirements.
        Self(raw, PhantomData)
    }

    /// Returns a raw pointer to the `struct dev_pagemap`.
    #[inline]
    pub fn as_raw(self) -> *mut bindings::dev_pagemap {
        self.0.as_ptr()
    }
}

/// A folio whose last reference is gone.
///
/// Its pages cannot be handed out again before this is dropped.
///
/// Forgetting it makes the unbinding of the device wait for ever.
///
/// # Invariants
///
/// - The pages of `block` are in use in `base`, and belong to `self` alone. They still are the
///   folio that they were, but without references.
/// - `base` is valid, as `self` owns a reference to the pagemap for each of the pages.
pub struct FreeFolio {
    base: NonNull<Base>,
    block: Block,
}

// SAFETY: The references to the pagemap may be put by any thread.
unsafe impl Send for FreeFolio {}

// SAFETY: Through a shared reference numbers can be read, and the memory can be cleared, which
// threads may do at the same time.
unsafe impl Sync for FreeFolio {}

impl FreeFolio {
    /// Returns the pages, counted from the start of the pagemap.
    #[inline]
    pub fn block(&self) -> Block {
        self.block
    }

    /// Clears the memory, so that whoever gets it next does not have to wait for that.
    pub fn clear(&self) {
        // SAFETY: By the type invariant.
        let base = unsafe { self.base.as_ref() };

        // SAFETY: By the type invariants, these are pages of the pagemap. `memremap_pages()` has
        // mapped them as MMIO, and as they belong to `self`, nobody else uses them.
        unsafe {
            let page = bindings::pfn_to_page(base.first_pfn + self.block.first());

            clear_mmio(
                bindings::folio_address(page.cast()),
                self.block.nr_units() << PAGE_SHIFT,
            );
        }
        for page in self.block.range() {
            if let Some(last) = base.users.get(page) {
                last.store(NOBODY, Relaxed);
            }
        }
    }

    /// Has a workqueue pass it to [`PagemapOps::folio_free_deferred`], which may sleep.
    ///
    /// May be called from any context but NMI. Does not allocate memory.
    pub fn defer(self) {
        let this = mem::ManuallyDrop::new(self);
        // SAFETY: By the type invariant.
        let base = unsafe { this.base.as_ref() };
        // SAFETY: By the type invariants, this is the number of a page of the pagemap.
        let page = unsafe { bindings::pfn_to_page(base.first_pfn + this.block.first()) };
        // CAST: It is the first page of a folio.
        let folio: *mut bindings::folio = page.cast();
        let mut head = base.deferred.load(Relaxed);

        // Whoever takes it off the list may give up the last reference to the pagemap.
        //
        // SAFETY: The pages hold references to the pagemap.
        unsafe { bindings::percpu_ref_get(base.ref_()) };
        loop {
            // SAFETY: By the type invariant, the folio has no references, and is ours.
            unsafe { set_next_deferred(folio, head) };
            // INVARIANT: The folio is one without references.
            match base.deferred.cmpxchg(head, folio, Release) {
                Ok(_) => break,
                Err(now) => head = now,
            }
        }
        // SAFETY: The work has been initialised. If it is queued it is executed before `base` is
        // gone: `Base::drop` flushes it.
        unsafe {
            bindings::queue_work_on(
                // CAST: The number of possible processors is far below `c_int::MAX`.
                bindings::wq_misc_consts_WORK_CPU_UNBOUND as c_int,
                bindings::system_dfl_wq,
                base.work.get(),
            )
        };
        // SAFETY: We have got a reference. After this the pagemap may be gone.
        unsafe { bindings::percpu_ref_put(base.ref_()) };
    }
}

impl Drop for FreeFolio {
    fn drop(&mut self) {
        // SAFETY: By the type invariant.
        let base = unsafe { self.base.as_ref() };
        let ref_ = base.ref_();

        // The pages are in use by the type invariant, so this does not fail.
        let _ = base.out.free(self.block);

        // SAFETY: By the type invariant, these references are ours. Nothing is accessed after the
        // last of them has been put, as the pagemap may be gone by then.
        unsafe { bindings::percpu_ref_put_many(ref_, self.block.nr_units()) };
    }
}
