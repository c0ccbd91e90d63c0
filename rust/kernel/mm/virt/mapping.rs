// SPDX-License-Identifier: GPL-2.0

//! New mappings.

// At present, only peer-to-peer DMA memory can be mapped in this way.
#![cfg_attr(not(CONFIG_PCI_P2PDMA), allow(dead_code))]

use crate::{
    bindings,
    page::PAGE_SHIFT,
    types::NotThreadSafe, //
};
#[cfg(CONFIG_PCI_P2PDMA)]
use crate::{
    error::to_result,
    memremap::DeviceFolio,
    prelude::*, //
};
use core::{
    ops::Range,
    ptr, //
};

/// A VMA that `mmap()` has just created.
///
/// # Invariants
///
/// - A call of the `mapped()` operation of a new VMA is running on the current thread, for the
///   addresses `range` and the file offset `pgoff`. `VmaDesc::set_p2pdma_ops` has installed the
///   operations of the VMA.
/// - `vma` is that VMA, or null if `unmap_mapping_range()` does not find it yet.
pub struct NewMapping {
    vma: *mut bindings::vm_area_struct,
    range: Range<usize>,
    pgoff: usize,
    _not_send: NotThreadSafe,
}

impl NewMapping {
    /// Creates a [`NewMapping`] for the duration of a call of `mapped()`.
    ///
    /// # Safety
    ///
    /// For as long as the result exists, a call of the `mapped()` operation of a new VMA must be
    /// running on the current thread, with the addresses `range`, the offset `pgoff`, and the file
    /// `file`. [`VmaDesc::set_p2pdma_ops`] must have installed the operations of the VMA.
    ///
    /// [`VmaDesc::set_p2pdma_ops`]: super::VmaDesc::set_p2pdma_ops
    pub(super) unsafe fn new(
        range: Range<usize>,
        pgoff: usize,
        file: *const bindings::file,
    ) -> Self {
        let vma = if cfg!(CONFIG_PCI_P2PDMA) {
            // SAFETY: The `mapped()` operation is running with these arguments.
            unsafe { bindings::mmap_mapped_vma(file, range.start) }
        } else {
            ptr::null_mut()
        };

        // INVARIANT: By the safety requirements.
        Self {
            vma,
            range,
            pgoff,
            _not_send: NotThreadSafe,
        }
    }

    /// Returns the number of pages of the VMA.
    #[inline]
    pub fn nr_pages(&self) -> usize {
        self.range.len() >> PAGE_SHIFT
    }

    /// Returns the offset in the file, in pages, at which the VMA starts.
    #[inline]
    pub fn pgoff(&self) -> usize {
        self.pgoff
    }

    /// Returns the address of the page with the index `index` of the VMA, if there is one.
    #[cfg(CONFIG_PCI_P2PDMA)]
    fn addr(&self, index: usize) -> Option<usize> {
        // OVERFLOW: The address lies within the VMA.
        (index < self.nr_pages()).then(|| self.range.start + (index << PAGE_SHIFT))
    }

    /// Maps `folio`, the first page of it at the page with the index `index` of the VMA.
    ///
    /// The mapping gets references to the folio, which are put when the pages are unmapped. If this
    /// fails, a part of the folio may be mapped. Faults may map the rest.
    ///
    /// May sleep.
    ///
    /// C function: `pci_p2pdma_map_folio()`
    ///
    /// # Errors
    ///
    /// - `EAGAIN` if `unmap_mapping_range()` does not find the VMA yet.
    /// - `EBUSY` if a page is mapped there already.
    /// - `EINVAL` if the index is not within the VMA, or if the VMA was prepared for a pagemap with
    ///   another cache mode.
    /// - `ENOMEM` without memory for page tables.
    #[cfg(CONFIG_PCI_P2PDMA)]
    pub(crate) fn insert_folio(&self, index: usize, folio: &DeviceFolio) -> Result {
        let addr = self.addr(index).ok_or(EINVAL)?;

        if self.vma.is_null() {
            return Err(EAGAIN);
        }
        // SAFETY: By the type invariants, this is a VMA whose `mapped()` operation is running, so
        // it is valid, and its `mmap_lock` is held for writing. `VmaDesc::set_p2pdma_ops` has
        // prepared it, and checked that the mapping is shared. By the type invariants of
        // `DeviceFolio`, the folio has references.
        to_result(unsafe { bindings::pci_p2pdma_map_folio(self.vma, addr, folio.as_raw()) })
    }
}
