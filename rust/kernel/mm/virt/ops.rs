// SPDX-License-Identifier: GPL-2.0

//! Operations of a VMA.
//!
//! C header: [`include/linux/mm.h`](srctree/include/linux/mm.h)
//!
//! Reference: <https://docs.kernel.org/filesystems/mmap_prepare.html>

// At present, only peer-to-peer DMA memory can be mapped in this way.
#![cfg_attr(not(CONFIG_PCI_P2PDMA), allow(dead_code))]

use super::{
    FaultResult,
    MmapFile,
    NewMapping,
    VmFault, //
};
use crate::{
    bindings,
    error::from_result,
    prelude::*,
    sync::{
        Arc,
        ArcBorrow, //
    },
    types::ForeignOwnable, //
};
use core::marker::PhantomData;

/// The operations of VMAs that map a file of kind [`VmOps::File`].
///
/// Each VMA with these operations owns a reference to an object of the type that implements the
/// trait. When user space maps a file, [`mapped`] returns the object that the VMA gets. When a VMA
/// is split, moved by `mremap()`, or copied by `fork()`, the new VMA gets a reference to the same
/// object. When a VMA is unmapped, its reference is dropped, with the `mmap_lock` of the address
/// space held. So dropping an object must neither take the `mmap_lock` nor access user memory.
///
/// `VmaDesc::set_p2pdma_ops` installs the operations. At present, there is no other function that
/// does so, and it is for code of the kernel crate only: drivers cannot install operations of their
/// own.
///
/// [`mapped`]: VmOps::mapped
/// [`VmaDesc::set_p2pdma_ops`]: super::VmaDesc::set_p2pdma_ops
pub trait VmOps: Send + Sync + Sized + 'static {
    /// The kind of files whose VMAs have these operations.
    type File: MmapFile;

    /// Returns the object of a VMA that was created by `mmap()`.
    ///
    /// `data` is the private data of the file that is mapped. If this fails, `mmap()` fails with
    /// the same error.
    ///
    /// This is called once for each new VMA, after `mmap_prepare()` has succeeded. The VMA is
    /// linked into the mapping of the file before the first fault, so that `unmap_mapping_range()`
    /// finds it. It is linked already when this is called, unless the `mmap()` operation of another
    /// file has called `mmap_prepare()`. The file is still open. Everything else that
    /// `mmap_prepare()` has looked at may have changed since.
    ///
    /// May sleep. The `mmap_lock` is held for writing, so user memory must not be accessed.
    fn mapped(data: <Self::File as MmapFile>::Data<'_>, mapping: &NewMapping) -> Result<Arc<Self>>;

    /// Handles a page fault: an access to an address of the VMA at which no page is mapped.
    ///
    /// Several threads may call this at the same time, even for the same page, and on behalf of
    /// other processes.
    ///
    /// May sleep. Either the lock of the VMA or the `mmap_lock` is held for reading, so user memory
    /// must not be accessed.
    fn fault(this: ArcBorrow<'_, Self>, fault: &VmFault) -> FaultResult;
}

/// The `struct vm_operations_struct` of `T`.
///
/// The `vm_private_data` of a VMA with these operations is one of two pointers: what
/// [`Self::prepared`] has returned for its file, which has the lowest bit set, or an `Arc<T>` that
/// the VMA owns.
///
/// - It is the former until `mapped()` sets it. If `mapped()` fails, it is not set; the VMA is then
///   unmapped, unless that fails, too.
/// - `__split_vma()`, `copy_vma()` and `dup_mmap()` copy it to a new VMA along with all other
///   fields, and then call `open()` for the new VMA. If something fails in between, they free the
///   new VMA and call no operation for it.
/// - `close()` is called exactly once for each VMA that `mapped()` or `open()` was called for, as
///   `vma_close()` removes the operations. There is one exception: if the `mmap()` operation of
///   another file has called `mmap_prepare()` and `mapped()` and fails after that, `close()` is not
///   called. This leaks the reference.
/// - No VMA is merged into another one, see [`VmaDesc::set_p2pdma_ops`].
///
/// [`VmaDesc::set_p2pdma_ops`]: super::VmaDesc::set_p2pdma_ops
pub(super) struct VmaOpsTable<T>(PhantomData<T>);

impl<T: VmOps> VmaOpsTable<T> {
    /// Returns the private data of a VMA of `file`, a file of kind `T::File`, until `mapped()` is
    /// called for the VMA.
    pub(super) fn prepared(file: *const bindings::file) -> *mut c_void {
        file.map_addr(|addr| addr | 1).cast_mut().cast()
    }

    /// Returns the object of a VMA, or `None` if `mapped()` has not set it.
    ///
    /// # Safety
    ///
    /// `private_data` must be that of a VMA with these operations. The VMA must own the object for
    /// `'a`.
    unsafe fn object<'a>(private_data: *mut c_void) -> Option<ArcBorrow<'a, T>> {
        if private_data.addr() & 1 != 0 {
            return None;
        }
        // SAFETY: As the lowest bit is clear, `mapped()` has set this to a pointer of
        // `into_foreign()`. The caller promises that the VMA owns it for `'a`.
        Some(unsafe { Arc::<T>::borrow(private_data) })
    }

    /// # Safety
    ///
    /// This must be called for a new VMA as its `mapped()` operation. `private_data` must be valid
    /// for reads and writes, and `file` must be the open file that the VMA maps.
    unsafe extern "C" fn mapped_callback(
        start: c_ulong,
        end: c_ulong,
        pgoff: c_ulong,
        file: *const bindings::file,
        private_data: *mut *mut c_void,
    ) -> c_int {
        from_result(|| {
            // The `mmap()` operation of another file may have called our `mmap_prepare()` operation
            // for its VMA. The VMA then maps that other file.
            //
            // SAFETY: The caller promises that this can be read.
            if unsafe { *private_data } != Self::prepared(file) {
                return Err(EINVAL);
            }

            // SAFETY: As the pointers are equal, `VmaDesc::set_p2pdma_ops` was called for this
            // file. By the type invariant of `VmaDesc`, it is of kind `T::File`. The VMA holds a
            // reference to the file, so it is not released during this call.
            let data = unsafe { T::File::data(file) }.ok_or(EINVAL)?;
            // SAFETY: The arguments are those of this call. As the pointers are equal, see above,
            // `VmaDesc::set_p2pdma_ops` was called for this VMA.
            let mapping = unsafe { NewMapping::new(start..end, pgoff, file) };
            let this = T::mapped(data, &mapping)?;

            // SAFETY: The caller promises that this can be written to.
            unsafe { *private_data = this.into_foreign() };
            Ok(0)
        })
    }

    /// # Safety
    ///
    /// `vma` must be valid, have the operations of this table, and be a copy of another such VMA.
    unsafe extern "C" fn open_callback(vma: *mut bindings::vm_area_struct) {
        // SAFETY: The caller promises that `vma` is valid; nothing else can access it yet. The VMA
        // that it is a copy of owns the object, and is not closed during this call, as the
        // `mmap_lock` of its address space is held for writing.
        let this = unsafe { Self::object((*vma).vm_private_data) };

        if let Some(this) = this {
            // The new VMA already has the pointer. Give it a reference of its own.
            let _ = Arc::from(this).into_foreign();
        }
    }

    /// # Safety
    ///
    /// `vma` must be valid and have the operations of this table. It must not be used after this.
    unsafe extern "C" fn close_callback(vma: *mut bindings::vm_area_struct) {
        // SAFETY: The caller promises that `vma` is valid. No fault in it is being handled: it was
        // locked for writing when it was removed from its address space, or no thread uses the
        // address space any more.
        let private_data = unsafe { (*vma).vm_private_data };

        if private_data.addr() & 1 == 0 {
            // SAFETY: As the lowest bit is clear, `mapped()` has set this to a pointer of
            // `into_foreign()`, for which the VMA owns a reference. The VMA is not used any more.
            drop(unsafe { Arc::<T>::from_foreign(private_data) });
        }
    }

    /// # Safety
    ///
    /// `vmf` must be a fault in a VMA that has the operations of this table. Either the VMA or its
    /// address space must be locked for reading.
    unsafe extern "C" fn fault_callback(vmf: *mut bindings::vm_fault) -> bindings::vm_fault_t {
        // SAFETY: The caller promises that `vmf` and its VMA are valid. The VMA owns the object
        // until `close()`. That is called only after the VMA has been removed from its address
        // space, for which both the VMA and the address space are locked for writing. The caller
        // has locked one of them for reading.
        let this = unsafe { Self::object((*(*vmf).__bindgen_anon_1.vma).vm_private_data) };

        // There is no object if `mapped()` has failed and the VMA could not be unmapped after that.
        let Some(this) = this else {
            return FaultResult::SigBus.into_raw();
        };

        // SAFETY: `vmf` is the argument of this call.
        let fault = unsafe { VmFault::from_raw(vmf) };

        T::fault(this, fault).into_raw()
    }

    /// Maps nothing ahead of a fault.
    ///
    /// If a VMA has no such operation, `vmf_can_call_fault()` assumes that `fault()` needs the
    /// `mmap_lock`: each fault is tried with the lock of the VMA, and then repeated with the
    /// `mmap_lock`. Here `fault()` does not need it: `T::fault` gets an object and a [`VmFault`],
    /// and `pci_p2pdma_insert_page()` needs the lock of the VMA only.
    ///
    /// This is called in an RCU read-side critical section.
    extern "C" fn map_pages_callback(
        _vmf: *mut bindings::vm_fault,
        _start_pgoff: c_ulong,
        _end_pgoff: c_ulong,
    ) -> bindings::vm_fault_t {
        0
    }

    pub(super) const TABLE: bindings::vm_operations_struct = bindings::vm_operations_struct {
        mapped: Some(Self::mapped_callback),
        open: Some(Self::open_callback),
        close: Some(Self::close_callback),
        fault: Some(Self::fault_callback),
        map_pages: Some(Self::map_pages_callback),
        ..pin_init::zeroed()
    };
}
