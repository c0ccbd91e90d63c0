// SPDX-License-Identifier: GPL-2.0

//! Page faults.

// At present, only peer-to-peer DMA memory can be mapped in this way.
#![cfg_attr(not(CONFIG_PCI_P2PDMA), allow(dead_code))]

#[cfg(CONFIG_PCI_P2PDMA)]
use crate::memremap::DeviceFolio;
use crate::{
    bindings,
    types::Opaque, //
};

/// A page fault that is being handled.
///
/// # Invariants
///
/// This is the argument of a call of the `fault()` operation that is running on the current thread.
/// `VmaDesc::set_p2pdma_ops` has installed the operations of its VMA, those of a [`VmOps`].
///
/// [`VmOps`]: super::VmOps
#[repr(transparent)]
pub struct VmFault(Opaque<bindings::vm_fault>);

impl VmFault {
    /// Creates a reference to a [`VmFault`] from a raw pointer.
    ///
    /// # Safety
    ///
    /// During `'a`, a call of the `fault()` operation of a VMA with the argument `ptr` must be
    /// running on the current thread. [`VmaDesc::set_p2pdma_ops`] must have installed the
    /// operations of the VMA.
    ///
    /// [`VmaDesc::set_p2pdma_ops`]: super::VmaDesc::set_p2pdma_ops
    #[inline]
    pub(super) unsafe fn from_raw<'a>(ptr: *mut bindings::vm_fault) -> &'a Self {
        // CAST: `VmFault` is a transparent wrapper of `struct vm_fault`.
        // SAFETY: The caller promises that `ptr` is valid for `'a`.
        // INVARIANT: By the safety requirements. As the type is not `Sync`, the reference stays on
        // this thread.
        unsafe { &*ptr.cast() }
    }

    #[inline]
    fn as_raw(&self) -> *mut bindings::vm_fault {
        self.0.get()
    }

    /// Returns the offset in the file, in pages, of the page that is being accessed.
    #[inline]
    pub fn pgoff(&self) -> usize {
        // SAFETY: By the type invariant, this is valid. The field does not change.
        unsafe { (*self.as_raw()).__bindgen_anon_1.pgoff }
    }

    /// Maps the page `index` of `folio` at the address of the fault, and as much of the folio as
    /// fits around it.
    ///
    /// The mapping gets references to the folio, which are put when the pages are unmapped. If a
    /// page has been mapped at the address meanwhile, that page stays.
    ///
    /// The result is [`FaultResult::SigBus`] if the folio has no such page, or if the VMA was
    /// prepared for a pagemap with another cache mode.
    ///
    /// May sleep.
    ///
    /// C function: `pci_p2pdma_insert_page()`
    #[cfg(CONFIG_PCI_P2PDMA)]
    pub(crate) fn insert_page(&self, folio: &DeviceFolio, index: usize) -> FaultResult {
        if index >= folio.nr_pages() {
            return FaultResult::SigBus;
        }

        // SAFETY: The folio has that page. Folios of this type are not split while they have
        // references.
        let page = unsafe { bindings::folio_page(folio.as_raw(), index) };

        // SAFETY:
        // - By the type invariant, `self` is a fault that is being handled. Hence its VMA or its
        //   address space is locked for reading. `VmaDesc::set_p2pdma_ops` has checked that the
        //   mapping is shared, so that a write does not copy the page, and that its page table
        //   entries hold references to pages.
        // - `page` belongs to `folio`. By the type invariant of `DeviceFolio`, the reference count
        //   is not 0, and it is peer-to-peer DMA memory.
        let ret = unsafe { bindings::pci_p2pdma_insert_page(self.as_raw(), page) };

        match ret {
            bindings::vm_fault_reason_VM_FAULT_NOPAGE => FaultResult::NoPage,
            bindings::vm_fault_reason_VM_FAULT_OOM => FaultResult::Oom,
            _ => FaultResult::SigBus,
        }
    }
}

/// The result of a page fault, `vm_fault_t`.
///
/// Values that require fields of the `struct vm_fault` to be set, or locks to be released, such as
/// `VM_FAULT_RETRY`, are not available.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
#[must_use]
pub enum FaultResult {
    /// The access is repeated. If no page is mapped at the address then, it faults again.
    NoPage,
    /// There is not enough memory. The access is repeated after some has been reclaimed.
    Oom,
    /// The access fails. If it was made in user mode, the task gets a `SIGBUS`.
    SigBus,
}

impl FaultResult {
    pub(super) fn into_raw(self) -> bindings::vm_fault_t {
        match self {
            Self::NoPage => bindings::vm_fault_reason_VM_FAULT_NOPAGE,
            Self::Oom => bindings::vm_fault_reason_VM_FAULT_OOM,
            Self::SigBus => bindings::vm_fault_reason_VM_FAULT_SIGBUS,
        }
    }
}
