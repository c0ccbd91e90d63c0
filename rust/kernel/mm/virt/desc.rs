// SPDX-License-Identifier: GPL-2.0

//! VMAs that are about to be created.

#[cfg(CONFIG_PCI_P2PDMA)]
use super::{
    flags,
    ops::VmaOpsTable,
    vm_flags_t,
    VmOps, //
};
use crate::{
    bindings,
    types::Opaque, //
};
#[cfg(CONFIG_PCI_P2PDMA)]
use crate::{
    error::to_result,
    memremap::DevPagemap,
    prelude::*, //
};
use core::marker::PhantomData;

/// A kind of file that [`VmOps`](super::VmOps) can be implemented for.
///
/// This ties the operations of a VMA to the driver of the mapped file: only the driver of the files
/// of kind `F` gets a [`VmaDesc<F>`], and a [`VmaDesc<F>`] accepts only operations for files of
/// this kind.
///
/// Drivers cannot implement this trait. The abstractions of files do, for example [`MiscFile`].
///
/// [`MiscFile`]: crate::miscdevice::MiscFile
pub trait MmapFile: sealed::Sealed + 'static {
    /// The private data of an open file.
    type Data<'a>;

    /// Returns the private data of `file`, or `None` if its `open()` has not finished.
    ///
    /// # Safety
    ///
    /// `file` must point to an open file of this kind that is not released during `'a`.
    unsafe fn data<'a>(file: *const bindings::file) -> Option<Self::Data<'a>>;
}

pub(crate) mod sealed {
    /// Keeps drivers from implementing [`MmapFile`](super::MmapFile).
    pub trait Sealed {}
}

/// A VMA of a file of kind `F` that is about to be created.
///
/// This is the `struct vm_area_desc` that the `mmap_prepare()` operation of a file gets. The VMA
/// does not exist at that time, and may never exist. So `mmap_prepare()` must not have effects that
/// would have to be undone. [`VmOps::mapped`](super::VmOps::mapped) sets up the state of a VMA.
///
/// # Invariants
///
/// - This is the argument of a running call of the `mmap_prepare()` operation of a file of kind
///   `F`. Only the thread that runs this call accesses it.
/// - `file` of the `struct vm_area_desc` is that file.
#[repr(transparent)]
pub struct VmaDesc<F> {
    inner: Opaque<bindings::vm_area_desc>,
    _file: PhantomData<F>,
}

impl<F> VmaDesc<F> {
    /// Creates a reference to a [`VmaDesc`] from a raw pointer.
    ///
    /// # Safety
    ///
    /// During `'a`, a call of the `mmap_prepare()` operation of a file of kind `F` with the
    /// argument `ptr` must be running on the current thread. The field `file` must be that file.
    /// Nothing else may access the structure during `'a`.
    #[inline]
    pub unsafe fn from_raw<'a>(ptr: *mut bindings::vm_area_desc) -> &'a Self {
        // CAST: `VmaDesc` is a transparent wrapper of `struct vm_area_desc`.
        // SAFETY: The caller promises that `ptr` is valid for `'a`.
        // INVARIANT: By the safety requirements. As the type is not `Sync`, the reference stays on
        // this thread.
        unsafe { &*ptr.cast() }
    }

    /// Returns a raw pointer to the `struct vm_area_desc`.
    #[inline]
    pub fn as_raw(&self) -> *mut bindings::vm_area_desc {
        self.inner.get()
    }

    /// Returns the size in bytes. It is a multiple of the page size, and not zero.
    #[inline]
    pub fn size(&self) -> usize {
        // SAFETY: By the type invariant, this is valid and nobody else accesses it.
        unsafe { (*self.as_raw()).end - (*self.as_raw()).start }
    }

    /// Returns the offset in the file, in pages, at which the VMA is going to start.
    #[inline]
    pub fn pgoff(&self) -> usize {
        // SAFETY: By the type invariant, this is valid and nobody else accesses it.
        unsafe { (*self.as_raw()).pgoff }
    }

    /// Returns the flags, which are a combination of the constants in [`flags`].
    #[cfg(CONFIG_PCI_P2PDMA)]
    fn flags(&self) -> vm_flags_t {
        // SAFETY: By the type invariant, this is valid and nobody else accesses it.
        let flags = unsafe { (*self.as_raw()).vma_flags };

        // SAFETY: The function has no preconditions.
        unsafe { bindings::vma_flags_to_legacy(flags) }
    }

    /// Makes `T` the operations of the VMA, which is going to map pages of `pagemap`.
    ///
    /// The VMA gets the cache mode of these pages, and the flags [`flags::DONTEXPAND`] and
    /// [`flags::DONTDUMP`]. It can be split, moved and inherited on `fork()`. It can neither grow
    /// nor be merged with another VMA.
    ///
    /// This is not for drivers, as a process that keeps a mapping would keep the device from being
    /// unbound. Drivers use `pci::p2pdma::mmap`, which takes the memory back.
    ///
    /// C function: `pci_p2pdma_mmap_prepare()`
    ///
    /// # Errors
    ///
    /// `EINVAL` if the mapping is private: a write would copy the page.
    #[cfg(CONFIG_PCI_P2PDMA)]
    pub(crate) fn set_p2pdma_ops<T: VmOps<File = F>>(&self, pagemap: &DevPagemap) -> Result {
        // In VMAs with these flags, page table entries do not hold references to pages.
        const UNSUPPORTED: vm_flags_t =
            flags::IO | flags::PFNMAP | flags::MIXEDMAP | flags::HUGETLB;

        if self.flags() & UNSUPPORTED != 0 {
            return Err(EINVAL);
        }

        // `pci_p2pdma_mmap_prepare()` refuses private mappings. It also sets `VM_DONTEXPAND`, which
        // `VmaOpsTable` relies on: vma_merge_new_range() and vma_merge_existing_range() do not
        // merge VMAs with this flag (`VMA_SPECIAL_FLAGS`). They would not compare
        // `vm_private_data`. `mremap()` does not enlarge such VMAs, and user space cannot clear the
        // flag. So each VMA is one that `mapped()` was called for, or a part of one.
        //
        // SAFETY: By the type invariant, `self` is valid and nobody else accesses it. By that of
        // `DevPagemap`, `pagemap` is set up and has a provider.
        to_result(unsafe { bindings::pci_p2pdma_mmap_prepare(self.as_raw(), pagemap.as_raw()) })?;

        // SAFETY: By the type invariant, `self` is valid and nobody else accesses it.
        unsafe {
            (*self.as_raw()).vm_ops = &VmaOpsTable::<T>::TABLE;
            (*self.as_raw()).private_data = VmaOpsTable::<T>::prepared((*self.as_raw()).file);
        }
        Ok(())
    }
}
