// SPDX-License-Identifier: GPL-2.0

//! Pagemaps.

use super::{
    allocator::{
        AllocatorTable,
        BuiltIn,
        Contents,
        PageAllocator,
        TableOf,
        UserId, //
    },
    free::{
        deferred_callback,
        folio_free_callback, //
    },
    CacheMode,
    Cleaning,
    DevPagemap,
    DeviceFolio,
    FreeFolio, //
};
use crate::{
    bindings,
    device,
    error::from_err_ptr,
    mm::block_map::{
        Block,
        BlockMap, //
    },
    page::PAGE_SHIFT,
    pr_warn_once,
    prelude::*,
    static_lock_class,
    sync::aref::ARef,
    types::Opaque, //
};
use core::{
    any::TypeId,
    ops::Range,
    ptr::NonNull, //
};

/// The largest order of a folio of a [`Pagemap`], that of 2 MiB.
// A folio has to start at a physical address that is aligned to its size. Blocks are aligned
// relative to the start of the pagemap, which is aligned to subsections.
// CAST: A subsection is 2 MiB.
pub const MAX_ORDER: u32 = (bindings::SUBSECTION_SIZE as usize >> PAGE_SHIFT).ilog2();

/// The part of a pagemap that does not depend on the type of the allocator.
///
/// # Invariants
///
/// - `raw` is a `struct dev_pagemap` of type `MEMORY_DEVICE_PCI_P2PDMA` that `memremap_pages()` has
///   set up. Its first page is `first_pfn`. Only dropping `self` calls `memunmap_pages()`.
/// - `map` has a unit for each page. The unit is in use if and only if its page belongs to a folio
///   with references, to a [`FreeFolio`], to the list `deferred`, or to a running call of
///   [`Pagemap::alloc`]. Each page that is in use, except by such a call, holds one reference in
///   `raw.ref`.
/// - `zone_device_folio_recycle()` makes all folios. The first page of a folio has the folio's
///   [`Contents`] in `zone_device_data`, or the node of the list if the folio is on the list
///   `deferred`. While the pages are in use, only their owner, in the sense of the previous point,
///   accesses this word. Otherwise only `zone_device_folio_recycle()` does, and [`Pagemap::clean`]
///   with the lock that the former takes first.
/// - `work` runs [`deferred_callback`] for the folios of `deferred`. It is embedded, so that
///   queueing it does not allocate memory.
/// - `allocator` points to the field `allocator` of the [`Pagemap<A>`] that `self` is part of, and
///   `table` is that of the type `A`.
#[pin_data(PinnedDrop)]
pub(super) struct Base {
    #[pin]
    pub(super) raw: Opaque<bindings::dev_pagemap>,
    #[pin]
    pub(super) work: Opaque<bindings::work_struct>,
    pub(super) deferred: Opaque<bindings::llist_head>,
    pub(super) first_pfn: usize,
    pub(super) map: BlockMap,
    table: &'static AllocatorTable,
    allocator: *const c_void,
}

/// The operations of all pagemaps. They find the allocator through [`Base`].
static OPS: bindings::dev_pagemap_ops = bindings::dev_pagemap_ops {
    folio_free: Some(folio_free_callback),
    migrate_to_ram: None,
    memory_failure: None,
    ..pin_init::zeroed()
};

/// Initialises the work item of [`Base`].
///
/// This is neither generic nor inlined, so that the name is a string of the kernel: lockdep keeps
/// it when the module of a driver has been unloaded.
///
/// # Safety
///
/// `work` must point to memory for a `struct work_struct`, which must be pinned.
#[inline(never)]
unsafe fn init_deferred_work(work: *mut bindings::work_struct) {
    // SAFETY: The caller promises that `work` points to such memory. The function, the name and the
    // key are static.
    unsafe {
        bindings::init_work_with_key(
            work,
            Some(deferred_callback),
            false,
            c"pagemap_deferred".as_char_ptr(),
            static_lock_class!().as_ptr(),
        )
    };
}

impl Base {
    /// Sets up a pagemap.
    ///
    /// # Safety
    ///
    /// - `provider` must be that of a BAR which contains `range`, in bytes of physical address.
    ///   Both must stay valid for as long as the result does.
    /// - Start and size of `range` must be multiples of [`alignment`], and the size must not be 0.
    /// - `allocator` must point to a valid `A` that stays there for as long as the result does.
    ///
    /// [`alignment`]: super::alignment
    unsafe fn new<A: PageAllocator>(
        provider: NonNull<bindings::p2pdma_provider>,
        range: Range<u64>,
        mode: CacheMode,
        node: c_int,
        allocator: *const A,
    ) -> impl PinInit<Self, Error> {
        // CAST: `PCI_P2PDMA` depends on `64BIT`.
        let first_pfn = (range.start >> PAGE_SHIFT) as usize;
        let nr_pages = ((range.end - range.start) >> PAGE_SHIFT) as usize;

        try_pin_init!(Self {
            map: BlockMap::new(nr_pages, GFP_KERNEL)?,
            deferred: Opaque::zeroed(),
            first_pfn,
            table: &TableOf::<A>::TABLE,
            allocator: allocator.cast(),
            work <- Opaque::ffi_init(|work| {
                // SAFETY: `work` points to memory for a `struct work_struct`, which is pinned.
                unsafe { init_deferred_work(work) };
            }),
            // This field is the last one: if its initialisation succeeds, nothing else can fail, so
            // that nothing has to undo `memremap_pages()`.
            raw <- Opaque::try_ffi_init(move |raw: *mut bindings::dev_pagemap| {
                // SAFETY: `raw` points to memory for a `struct dev_pagemap`, for which zeros are
                // valid.
                unsafe { raw.write_bytes(0, 1) };
                // SAFETY: `raw` is valid and initialised, and nothing else has a pointer to it yet.
                let pgmap = unsafe { &mut *raw };

                pgmap.type_ = bindings::memory_type_MEMORY_DEVICE_PCI_P2PDMA;
                if mode == CacheMode::WriteCombine {
                    pgmap.flags = bindings::PGMAP_WRITECOMBINE;
                }
                pgmap.provider = provider.as_ptr();
                pgmap.ops = &raw const OPS;
                pgmap.nr_range = 1;
                // SAFETY: If `nr_range` is 1, `range` is the valid field of the union.
                *unsafe { pgmap.__bindgen_anon_1.range.as_mut() } = bindings::range {
                    start: range.start,
                    end: range.end - 1,
                };
                // SAFETY: `raw` is pinned, and all fields that the caller of the function has to
                // set are set.
                from_err_ptr(unsafe { bindings::memremap_pages(raw, node) })?;
                Ok::<(), Error>(())
            }),
        }? Error)
    }

    /// Returns the reference count of the pagemap.
    pub(super) fn ref_(&self) -> *mut bindings::percpu_ref {
        // SAFETY: `self.raw` is a valid `struct dev_pagemap`; no reference to it is created.
        unsafe { &raw mut (*self.raw.get()).ref_ }
    }

    /// Returns the page with index `nr`, counted from the start of the pagemap.
    pub(super) fn page(&self, nr: usize) -> *mut bindings::page {
        // SAFETY: The function only calculates an address. The callers access the page only if it
        // exists.
        unsafe { bindings::pfn_to_page(self.first_pfn.wrapping_add(nr)) }
    }

    /// Returns the pages of `block` to the allocator.
    pub(super) fn free_block(&self, block: Block) {
        // SAFETY: By the type invariant, `allocator` points to a valid value of the type of
        // `table`.
        unsafe { (self.table.free)(self.allocator, block) }
    }

    /// Passes a folio to [`PageAllocator::folio_free_deferred`] if `deferred` is set, else to
    /// [`PageAllocator::folio_free`].
    pub(super) fn folio_free(&self, mut folio: FreeFolio, deferred: bool) {
        // SAFETY: By the type invariant, `allocator` points to a valid value of the type of
        // `table`.
        unsafe {
            if deferred {
                (self.table.folio_free_deferred)(self.allocator, &mut folio);
            } else {
                (self.table.folio_free)(self.allocator, folio);
            }
        }
    }

    /// Makes a folio of a block of pages, for `user`.
    ///
    /// # Safety
    ///
    /// The caller must have claimed the pages of `block` in `map`, and the order of `block` must be
    /// at most [`MAX_ORDER`]. The caller passes the pages on.
    unsafe fn make_folio(&self, block: Block, user: UserId) -> ARef<DeviceFolio> {
        // CAST: A folio starts with its first page.
        let folio: *mut bindings::folio = self.page(block.first()).cast();

        // INVARIANT: `zone_device_folio_recycle()` takes one reference to the pagemap for each
        // page. It can: the pagemap is live until `self` is dropped.
        //
        // SAFETY: The caller has claimed the pages, so they are part of no folio with references,
        // and nobody else makes a folio of them. What their previous owner has done is visible:
        // freeing units of `map` has release semantics, and claiming them has acquire semantics.
        // Since then, only `zone_device_folio_recycle()` and `Pagemap::clean()` may have accessed
        // their struct pages.
        // The first page is aligned, physically too, as `MAX_ORDER` is not exceeded. Folios of
        // `raw` are not made in another way.
        let old = unsafe {
            bindings::zone_device_folio_recycle(
                folio,
                self.raw.get(),
                block.order(),
                Contents::from(user).into_word(),
            )
        };
        // SAFETY: The folio belongs to a pagemap of peer-to-peer DMA memory, and now has one
        // reference, which the `ARef` gets.
        let folio = unsafe { ARef::<DeviceFolio>::from_raw(NonNull::new_unchecked(folio.cast())) };

        Contents::from_word(old).prepare(&folio, user);
        folio
    }
}

#[pinned_drop]
impl PinnedDrop for Base {
    fn drop(self: Pin<&mut Self>) {
        // SAFETY: By the type invariant, the pagemap is set up. The function sleeps until it has no
        // references any more, so that no page is in use after it.
        unsafe { bindings::memunmap_pages(self.raw.get()) };
        // The work may have put the last reference, and still access `deferred` afterwards. Wait
        // for it.
        //
        // SAFETY: The work has been initialised.
        unsafe { bindings::flush_work(self.work.get()) };
    }
}

/// A `struct dev_pagemap` of memory behind a BAR, together with an allocator of its pages.
///
/// It is released when the device has been unbound. The release waits until all references to
/// folios and all [`FreeFolio`]s have been dropped.
///
/// The pagemap keeps nine bits for eight pages in addition to what the allocator `A` keeps. It
/// records the last user of a page in its `struct page`.
///
/// # Invariants
///
/// `base.allocator` points to `allocator`.
///
/// # Examples
///
/// ```
/// use kernel::{
///     device::Core,
///     memremap::{
///         CacheMode,
///         UserId, //
///     },
///     pci,
///     prelude::*, //
/// };
///
/// /// Tests a page of BAR 2.
/// fn probe_memory(pdev: &pci::Device<Core<'_>>) -> Result {
///     pdev.enable_device_mem()?;
///
///     let len = pdev.resource_len(2)?;
///     let pagemap = pdev.p2pdma_pagemap(2, 0..len, CacheMode::Uncached)?;
///     let folio = pagemap.alloc(0, UserId::unique())?;
///
///     assert_eq!(folio.nr_pages(), 1);
///     assert!(pagemap.nr_used() >= 1 && pagemap.nr_used() <= pagemap.nr_pages());
///     // The memory is clear.
///     kernel::io::Io::try_read64(folio.as_mmio()?, 0).map(|value| assert_eq!(value, 0))
/// }
/// ```
#[pin_data]
pub struct Pagemap<A: PageAllocator = BuiltIn> {
    // Dropped before `allocator`, which is not called any more after that.
    #[pin]
    base: Base,
    allocator: A,
}

// SAFETY: Any thread may use and drop `Base`: `memunmap_pages()` may run on another thread than
// `memremap_pages()`. `A` is `Send`.
unsafe impl<A: PageAllocator> Send for Pagemap<A> {}

// SAFETY: The fields of `Base` do not change, or are atomic, or are C structures that are only
// passed to functions which may be called concurrently. `A` is `Sync`.
unsafe impl<A: PageAllocator> Sync for Pagemap<A> {}

impl<A: PageAllocator> Pagemap<A> {
    /// Gives `struct page`s to memory of a BAR.
    ///
    /// # Safety
    ///
    /// - `provider` must be that of a BAR of `dev` which contains `range`, in bytes of physical
    ///   address. Both must stay valid for as long as the result does.
    /// - Start and size of `range` must be multiples of [`alignment`], and the size must not be 0.
    ///
    /// [`alignment`]: super::alignment
    pub(crate) unsafe fn new(
        provider: NonNull<bindings::p2pdma_provider>,
        range: Range<u64>,
        mode: CacheMode,
        dev: &device::Device<device::Bound>,
        allocator: A,
    ) -> impl PinInit<Self, Error> {
        // SAFETY: `dev.as_raw()` is a valid pointer to a `struct device`.
        let node = unsafe { bindings::dev_to_node(dev.as_raw()) };

        try_pin_init!(&this in Self {
            allocator,
            // SAFETY: The caller fulfils the requirements for `provider` and `range`. `allocator`
            // has just been initialised, is pinned, and is dropped after `base`.
            base <- unsafe {
                Base::new(provider, range, mode, node, &raw const (*this.as_ptr()).allocator)
            },
        }? Error)
    }

    /// Returns the number of pages.
    #[inline]
    pub fn nr_pages(&self) -> usize {
        self.base.map.len()
    }

    /// Returns the number of pages in use: those that have been allocated and not been freed since.
    ///
    /// The number is as exact as that of [`BlockMap::used`].
    #[inline]
    pub fn nr_used(&self) -> usize {
        self.base.map.used()
    }

    /// Returns whether at least `nr_pages` pages are free. They need not be contiguous.
    #[inline]
    pub fn has_free(&self, nr_pages: usize) -> bool {
        self.base.map.has_free(nr_pages)
    }

    /// Clears the free memory of `pages` that `user` has left, unless
    /// [`PageAllocator::ACCESS_FREE`] is false. Ends early if `stop` returns true.
    ///
    /// Returns false if the memory may not be accessed, or if the device does not accept the
    /// writes. May sleep.
    ///
    /// # Safety
    ///
    /// `user` must not allocate memory of the pagemap any more.
    pub(crate) unsafe fn clean(
        &self,
        pages: Range<usize>,
        user: UserId,
        stop: &dyn Fn() -> bool,
    ) -> bool {
        if !A::ACCESS_FREE || pages.end > self.nr_pages() {
            return false;
        }

        let is_free = |block| self.base.map.is_free(block);
        let cleaning = Cleaning {
            user,
            is_free: &is_free,
            stop,
        };

        // SAFETY: These are pages of this pagemap, which is set up for as long as `self` exists. By
        // the type invariant of `Base`, `zone_device_folio_recycle()` makes all of its folios, with
        // a `Contents`, after their pages have been claimed in `map`. Freeing units of `map` has
        // release semantics, and `is_free()` has acquire semantics. The allocator allows accesses
        // to free memory. The caller promises the rest.
        unsafe { self.as_dev_pagemap().clean(pages, &cleaning) }
    }

    /// Allocates a folio of `1 << order` pages for `user`, or of less if there is no such block.
    ///
    /// An `order` above [`MAX_ORDER`] counts as [`MAX_ORDER`]. The folio is aligned to its size,
    /// physically and relative to the start of the pagemap. The result is the only reference to it.
    /// The memory holds zeros, or what `user` left there.
    ///
    /// C function: `zone_device_folio_recycle()`. May sleep.
    ///
    /// # Errors
    ///
    /// - `ENOSPC` if the allocator has no free page.
    /// - `EBUSY` if the allocator has returned pages that are in use.
    /// - `EINVAL` if it has returned pages outside of the pagemap, or a block of a larger order
    ///   than requested.
    pub fn alloc(&self, order: u32, user: UserId) -> Result<ARef<DeviceFolio>> {
        let base = &self.base;
        let order = order.min(MAX_ORDER);
        let block = if TypeId::of::<A>() == TypeId::of::<BuiltIn>() {
            base.map.alloc_up_to(order).ok_or(ENOSPC)?
        } else {
            let block = self.allocator.alloc(order).ok_or(ENOSPC)?;
            let claimed = if block.order() <= order {
                base.map.claim(block)
            } else {
                Err(EINVAL)
            };

            claimed.inspect_err(|_| pr_warn_once!("allocator returned a bad {block:?}\n"))?;
            block
        };

        // SAFETY: The block has just been claimed. Its order is at most `order`.
        Ok(unsafe { base.make_folio(block, user) })
    }

    /// Returns the cache mode that the memory is mapped with.
    ///
    /// On x86 it differs from the requested one if the memory was mapped with the other mode
    /// already when the pagemap was created.
    #[inline]
    pub fn mode(&self) -> CacheMode {
        // SAFETY: By the type invariant of `Base`, the pagemap is set up. The field does not change
        // after `memremap_pages()` has returned.
        let flags = unsafe { (*self.base.raw.get()).flags };

        if flags & bindings::PGMAP_WRITECOMBINE != 0 {
            CacheMode::WriteCombine
        } else {
            CacheMode::Uncached
        }
    }

    /// Returns the `struct dev_pagemap`.
    #[inline]
    pub fn as_dev_pagemap(&self) -> &DevPagemap {
        // SAFETY: By the type invariant of `Base`, the pagemap is set up for as long as `self`
        // exists. Its provider outlives it.
        unsafe { DevPagemap::from_raw(self.base.raw.get()) }
    }
}
