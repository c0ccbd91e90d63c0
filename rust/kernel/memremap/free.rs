// SPDX-License-Identifier: GPL-2.0

//! Folios on their way back to the allocator.

use super::{
    allocator::Contents,
    folio::clear_mmio,
    pagemap::Base, //
};
use crate::{
    bindings,
    container_of,
    mm::block_map::Block,
    page::PAGE_SHIFT,
    prelude::*,
    types::Opaque, //
};
use core::{
    mem,
    ptr::NonNull, //
};

/// A folio whose last reference has been dropped.
///
/// Dropping it returns the pages to the allocator, by [`PageAllocator::free`]. Until then they
/// cannot be allocated. If it is forgotten, unbinding the device waits forever.
///
/// # Invariants
///
/// - `base` is valid. `self` owns one reference to its pagemap for each page of `block`.
/// - The pages of `block` are in use in `base.map` and belong to `self` alone. They are still set
///   up as a folio of that order, whose reference count is 0.
///
/// [`PageAllocator::free`]: super::PageAllocator::free
pub struct FreeFolio {
    base: NonNull<Base>,
    block: Block,
}

// SAFETY: Any thread may put references to the pagemap. The allocator is `Sync`.
unsafe impl Send for FreeFolio {}

// SAFETY: The only method that takes a shared reference reads `block`, which does not change.
unsafe impl Sync for FreeFolio {}

impl FreeFolio {
    /// Returns the pages, counted from the start of the pagemap.
    #[inline]
    pub fn block(&self) -> Block {
        self.block
    }

    fn base(&self) -> &Base {
        // SAFETY: By the type invariant, `base` is valid for as long as `self` exists.
        unsafe { self.base.as_ref() }
    }

    /// Returns the first page.
    fn page(&self) -> *mut bindings::page {
        self.base().page(self.block.first())
    }

    /// Clears the memory now, so that [`Pagemap::alloc`] does not have to clear it for the next
    /// user. If the device does not accept the writes, [`Pagemap::alloc`] clears it again.
    ///
    /// [`Pagemap::alloc`]: super::Pagemap::alloc
    pub fn clear(&mut self) {
        // SAFETY: By the type invariants, these are pages of the pagemap, and nobody else uses
        // them. `memremap_pages()` has mapped them as MMIO.
        let arrived = unsafe {
            clear_mmio(
                bindings::folio_address(self.page().cast()),
                self.block.nr_units() << PAGE_SHIFT,
            )
        };
        let contents = if arrived {
            Contents::CLEAR
        } else {
            Contents::UNKNOWN
        };
        // SAFETY: By the type invariants, the pages belong to `self`, so that nothing else uses
        // `zone_device_data` of the first one.
        unsafe { *word_of(self.page()) = contents.into_word() };
    }

    /// Makes a workqueue pass the folio to [`PageAllocator::folio_free_deferred`], which may sleep.
    ///
    /// The pages are in use until that function has returned. Unless it calls [`Self::clear`], they
    /// are cleared when they are allocated again, even for the same user.
    ///
    /// Does not allocate memory. May be called from any context except NMI.
    ///
    /// [`PageAllocator::folio_free_deferred`]: super::PageAllocator::folio_free_deferred
    pub fn defer(self) {
        let this = mem::ManuallyDrop::new(self);
        let base = this.base();
        let ref_ = base.ref_();

        // Once the folio is on the list, the work may put the references of its pages, and with
        // them the last ones to the pagemap. Keep the pagemap until `queue_work_on()` has returned.
        //
        // SAFETY: The pages hold references to the pagemap.
        unsafe { bindings::percpu_ref_get(ref_) };
        // SAFETY: By the type invariants, the pages belong to `self`, so that nothing else uses
        // `zone_device_data` of the first one. `base.deferred` is a valid list. `base.work` is
        // initialised. It stays valid until it has run: `Base::drop` waits for that before `base`
        // is freed.
        unsafe {
            // CAST: A `struct llist_node` is one pointer.
            bindings::llist_add(word_of(this.page()).cast(), base.deferred.get());
            bindings::queue_work_on(
                // CAST: The number of possible processors is far below `c_int::MAX`.
                bindings::wq_misc_consts_WORK_CPU_UNBOUND as c_int,
                bindings::system_dfl_wq,
                base.work.get(),
            );
        }
        // SAFETY: This is the reference that was taken above. The pagemap may be released after
        // this, and is not accessed any more.
        unsafe { bindings::percpu_ref_put(ref_) };
    }
}

impl Drop for FreeFolio {
    fn drop(&mut self) {
        let base = self.base();
        let ref_ = base.ref_();

        // Free the pages in the map of the pagemap first: the allocator may hand them out again as
        // soon as `free_block()` has returned them to it.
        //
        // This cannot fail: by the type invariant, the pages are in use.
        let _ = base.map.free(self.block);
        base.free_block(self.block);

        // SAFETY: By the type invariant, `self` owns these references. Nothing of the pagemap is
        // accessed after this call, which may put the last reference.
        unsafe { bindings::percpu_ref_put_many(ref_, self.block.nr_units()) };
    }
}

/// Returns `zone_device_data` of a page, the word for the driver.
///
/// # Safety
///
/// `page` must be a page of a pagemap that belongs to the caller.
pub(super) unsafe fn word_of(page: *mut bindings::page) -> *mut *mut c_void {
    // SAFETY: The caller promises that this is a page of device memory.
    unsafe { &raw mut (*page).__bindgen_anon_1.__bindgen_anon_4.zone_device_data }
}

/// The `folio_free()` operation of pagemaps, called by `free_zone_device_folio()`.
///
/// Neither this nor [`deferred_callback`] is generic, so both are code of the kernel, not of the
/// driver's module. [`give_back`] holds a reference to the pagemap while the allocator runs. So
/// even if the allocator drops the folio in `free()`, no code of the module runs after the last
/// reference to the pagemap has been put, which allows the module to be unloaded. An allocator that
/// keeps the folio and drops it in a thread of its own must end that thread before.
///
/// # Safety
///
/// `folio` must be a folio of a pagemap that is part of a [`Base`]. Its reference count must just
/// have become 0.
pub(super) unsafe extern "C" fn folio_free_callback(folio: *mut bindings::folio) {
    // SAFETY: `folio` is a valid folio of device memory, and starts with its first page.
    let pgmap = unsafe { bindings::page_pgmap(folio.cast()) };
    // SAFETY: By the safety requirements, `pgmap` is the field `raw` of a `Base`.
    let base = unsafe { container_of!(Opaque::cast_from(pgmap), Base, raw) };

    // SAFETY: `base` is valid, and `folio` is a folio of its pagemap. The reference count has
    // become 0, and this is the only call for that event, so nobody else uses the folio. Each page
    // of it holds a reference to the pagemap, which is passed on.
    unsafe { give_back(NonNull::new_unchecked(base.cast_mut()), folio, false) };
}

/// The work of a [`Base`]: passes all deferred folios to the allocator.
///
/// # Safety
///
/// `work` must be the field `work` of a [`Base`], which must stay valid for the duration of the
/// call.
pub(super) unsafe extern "C" fn deferred_callback(work: *mut bindings::work_struct) {
    // SAFETY: The caller promises that `work` is the field of a `Base` that stays valid during this
    // call.
    let base = unsafe { &*container_of!(Opaque::cast_from(work), Base, work) };

    // SAFETY: This is a valid list. Folios that are added to it later queue the work again.
    let mut node = unsafe { bindings::llist_del_all(base.deferred.get()) };

    while !node.is_null() {
        // SAFETY: The node is `zone_device_data` of the first page of a folio. It has been taken
        // off the list, so the node, the page and the folio belong to this function.
        let (next, page) = unsafe {
            let offset = mem::offset_of!(
                bindings::page,
                __bindgen_anon_1.__bindgen_anon_4.zone_device_data
            );

            ((*node).next, node.byte_sub(offset).cast::<bindings::page>())
        };
        // The word has been a list node, so the contents of the page are not known any more.
        //
        // SAFETY: The page belongs to this function.
        unsafe { *word_of(page) = Contents::UNKNOWN.into_word() };

        // SAFETY: The folio has no references and belongs to this function. Each page of it holds a
        // reference to the pagemap, which is passed on.
        unsafe { give_back(NonNull::from(base), page.cast(), true) };
        node = next;
    }
}

/// Passes a folio whose reference count is 0 to the allocator.
///
/// The pagemap may have been released when this returns.
///
/// # Safety
///
/// - `base` must be valid. `folio` must be a folio of its pagemap, have a reference count of 0, and
///   belong to the caller alone.
/// - For each page of the folio, the caller must own a reference to the pagemap. It passes them on.
unsafe fn give_back(base: NonNull<Base>, folio: *mut bindings::folio, deferred: bool) {
    // SAFETY: The pages of the folio hold references to the pagemap.
    let this = unsafe { base.as_ref() };
    // SAFETY: `folio` is a valid folio.
    let (pfn, order) = unsafe { (bindings::folio_pfn(folio), bindings::folio_order(folio)) };
    let Some(block) = Block::new(pfn.wrapping_sub(this.first_pfn), order) else {
        // This cannot fail: the folio was made from a block with this start and order.
        return;
    };
    let ref_ = this.ref_();

    // The allocator may drop the `FreeFolio`, and with it the last references to the pagemap,
    // before its method returns. Keep the pagemap until then.
    //
    // SAFETY: The pages of the folio hold references to the pagemap.
    unsafe { bindings::percpu_ref_get(ref_) };
    // INVARIANT: The caller passes on the pages of the folio, and one reference to the pagemap for
    // each.
    this.folio_free(FreeFolio { base, block }, deferred);
    // SAFETY: This is the reference that was taken above.
    unsafe { bindings::percpu_ref_put(ref_) };
}
