// SPDX-License-Identifier: GPL-2.0

//! Clearing of memory that is free.

use super::{
    allocator::{
        Contents,
        UserId, //
    },
    folio::clear_mmio,
    free::word_of,
    DevPagemap, //
};
use crate::{
    bindings,
    mm::block_map::Block,
    page::{
        PAGE_SHIFT,
        PAGE_SIZE, //
    },
    prelude::*,
    sizes::SZ_1K, //
};
use core::ops::Range;

/// How many bytes are cleared at a time, with interrupts disabled.
const STEP: usize = SZ_1K;

// `clean_folio()` clears a folio in whole steps.
const _: () = assert!(PAGE_SIZE.is_multiple_of(STEP));

/// What the allocator and the users of a pagemap tell [`DevPagemap::clean`].
pub(crate) struct Cleaning<'a> {
    /// The user whose memory is to be cleared.
    pub(crate) user: UserId,
    /// Returns whether all pages of a block, counted from the start of the pagemap, are free.
    /// May be called with a spinlock held and interrupts disabled.
    pub(crate) is_free: &'a dyn Fn(Block) -> bool,
    /// Returns whether to stop.
    pub(crate) stop: &'a dyn Fn() -> bool,
}

/// While this exists, nobody else uses free memory of the pagemap. The owner may access it.
///
/// # Invariants
///
/// `zone_device_free_lock()` has been called for `pgmap`, and has returned `flags`.
struct FreeLock<'a> {
    pgmap: &'a DevPagemap,
    flags: c_ulong,
}

impl<'a> FreeLock<'a> {
    fn new(pgmap: &'a DevPagemap) -> Self {
        // INVARIANT: This calls the function.
        Self {
            pgmap,
            // SAFETY: By the type invariant of `DevPagemap`, the pagemap is set up.
            flags: unsafe { bindings::zone_device_free_lock(pgmap.as_raw()) },
        }
    }

    /// Returns the page with index `nr`, counted from the start of the pagemap.
    fn page(&self, nr: usize) -> *mut bindings::page {
        // SAFETY: The function only calculates an address. The callers access the page only if it
        // exists.
        unsafe { bindings::pfn_to_page(self.pgmap.first_pfn() + nr) }
    }

    /// Returns the pages of the folio that starts with page `nr`, if all of them are free and hold
    /// what the user has left.
    ///
    /// # Safety
    ///
    /// As for [`DevPagemap::clean`]. `nr` must be the index of a page of the pagemap.
    unsafe fn find(&self, cleaning: &Cleaning<'_>, nr: usize) -> Option<Block> {
        if !(cleaning.is_free)(Block::new(nr, 0)?) {
            return None;
        }
        let page = self.page(nr);
        // SAFETY: This is a page of the pagemap, and free. If it is part of a folio of which others
        // own a page, they may break up the folio, but only with the lock that is held.
        let order = unsafe {
            let folio = bindings::page_folio(page);

            if folio != page.cast() {
                return None;
            }
            bindings::folio_order(folio)
        };
        let block = Block::new(nr, order)?;

        if !(cleaning.is_free)(block) {
            return None;
        }
        // SAFETY: All pages of the folio are free, and the lock is held, so nobody else accesses
        // this word. What its last owner has written is visible, as the pages were seen to be free.
        let word = unsafe { *word_of(page) };

        (Contents::from_word(word) == cleaning.user.into()).then_some(block)
    }
}

impl Drop for FreeLock<'_> {
    fn drop(&mut self) {
        // SAFETY: By the type invariant, `zone_device_free_lock()` has returned `flags`.
        unsafe { bindings::zone_device_free_unlock(self.pgmap.as_raw(), self.flags) };
    }
}

impl DevPagemap {
    /// Returns the page frame number of the first page.
    pub(crate) fn first_pfn(&self) -> usize {
        // SAFETY: By the type invariant, the pagemap is set up and has one range, so this is the
        // valid field of the union. It does not change after setup.
        let start = unsafe { (*self.as_raw()).__bindgen_anon_1.range.as_ref().start };

        // CAST: `PCI_P2PDMA` depends on `64BIT`.
        (start >> PAGE_SHIFT) as usize
    }

    /// Clears the free memory of `pages` that a user has left.
    ///
    /// The pages are not taken from the allocator: allocations succeed meanwhile, and wait for a
    /// step of [`STEP`] bytes. Memory of the user that is in use is left alone. May sleep.
    ///
    /// Returns false if the device does not accept the writes.
    ///
    /// # Safety
    ///
    /// - `pages` must be pages of this pagemap, which must stay set up during the call. All of its
    ///   folios must be made by `zone_device_folio_recycle()`, with a [`Contents`] or NULL.
    /// - The user must not allocate memory of the pagemap any more.
    /// - If [`Cleaning::is_free`] returns true, each of the pages must have been free, in the sense
    ///   of `zone_device_free_lock()`, at some moment during the call. What its last owner has done
    ///   before freeing it must have happened before.
    /// - The device must allow accesses to free memory.
    pub(crate) unsafe fn clean(&self, pages: Range<usize>, cleaning: &Cleaning<'_>) -> bool {
        let mut nr = pages.start;

        while nr < pages.end && !(cleaning.stop)() {
            // Do not take the lock for each page that is in use.
            let is_free = Block::new(nr, 0).is_some_and(cleaning.is_free);
            let found = is_free.then(|| {
                // SAFETY: The caller promises what this requires.
                unsafe { FreeLock::new(self).find(cleaning, nr) }
            });

            nr += match found.flatten() {
                Some(block) => {
                    // SAFETY: The caller promises what this requires.
                    match unsafe { self.clean_folio(block, cleaning) } {
                        Some(true) => block.nr_units(),
                        Some(false) => return false,
                        // Somebody else has used the folio, or a part of it.
                        None => 1,
                    }
                }
                None => 1,
            };
        }
        true
    }

    /// Clears a folio, as long as it is free. Returns whether the device has accepted the writes,
    /// or [`None`] if the folio has not been cleared.
    ///
    /// # Safety
    ///
    /// As for [`DevPagemap::clean`].
    unsafe fn clean_folio(&self, block: Block, cleaning: &Cleaning<'_>) -> Option<bool> {
        let size = block.nr_units() << PAGE_SHIFT;

        for offset in (0..size).step_by(STEP) {
            if (cleaning.stop)() {
                return None;
            }
            let lock = FreeLock::new(self);

            // The user does not allocate memory any more. So if the folio still has the user's
            // word, nobody has made a folio of these pages since the first step.
            // `pci_alloc_p2pmem()` may have handed out some of them, but it marks them in
            // `pci_p2pdma_pagemap.raw`: the next folio of them is cleared whatever the word says.
            //
            // SAFETY: The caller promises what this requires.
            if unsafe { lock.find(cleaning, block.first()) } != Some(block) {
                return None;
            }

            let page = lock.page(block.first());
            // SAFETY: All pages of the folio are free, so that nobody else accesses the memory
            // until `lock` is dropped. `memremap_pages()` has mapped it as MMIO. The folio has this
            // size, and `STEP` divides that.
            let arrived =
                unsafe { clear_mmio(bindings::folio_address(page.cast()).byte_add(offset), STEP) };
            if !arrived {
                return Some(false);
            }
            if offset + STEP == size {
                // SAFETY: All pages of the folio are free, so that nobody else accesses the word.
                unsafe { *word_of(page) = Contents::CLEAR.into_word() };
            }
        }
        Some(true)
    }
}
