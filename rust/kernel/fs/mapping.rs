// SPDX-License-Identifier: GPL-2.0

//! Mappings of files.
//!
//! C header: [`include/linux/mm.h`](srctree/include/linux/mm.h)

use super::File;
use crate::{
    bindings,
    prelude::*, //
};
use core::ptr::NonNull;

/// The mappings of a file into the address spaces of processes.
///
/// This is for drivers that take back what they let user space map. It is not a reference to the
/// file: the private data of a file may contain its `FileMapping`, and usually do. What it does
/// keep is the inode, and the mount that the file was opened from busy.
///
/// Drivers get it from the abstraction of their kind of device, which makes sure that the file is
/// theirs, for example from [`MiscDeviceRegistration`].
///
/// # Examples
///
/// ```
/// use kernel::{
///     fs::{
///         File,
///         FileMapping, //
///     },
///     miscdevice::{
///         MiscDevice,
///         MiscDeviceRegistration, //
///     },
///     prelude::*, //
/// };
///
/// /// What `open()` has to keep of a file for [`take_back`], until it is released.
/// fn keep<T: MiscDevice>(
///     misc: &MiscDeviceRegistration<T>,
///     file: &File,
/// ) -> Result<FileMapping> {
///     misc.file_mapping(file)
/// }
///
/// /// Takes back what two open files have mapped, once faults do not insert anything any more.
/// fn take_back(one: &FileMapping, other: &FileMapping) {
///     one.unmap_all();
///     if other.id() != one.id() {
///         other.unmap_all();
///     }
/// }
/// ```
///
/// # Invariants
///
/// - `path` is valid, and a reference to it is owned.
/// - `mapping` is part of the inode of `path`.
///
/// [`MiscDeviceRegistration`]: crate::miscdevice::MiscDeviceRegistration::file_mapping
pub struct FileMapping {
    path: bindings::path,
    mapping: NonNull<bindings::address_space>,
}

impl FileMapping {
    /// Returns the mappings of `file`, or [`EINVAL`] if these are not kept by its own inode.
    pub(crate) fn new(file: &File) -> Result<Self> {
        let file = file.as_ptr();

        // SAFETY: A `File` is valid. These fields were set when it was opened, and do not change.
        let (path, inode, mapping) = unsafe {
            (
                (*file).__bindgen_anon_1.f_path,
                (*file).f_inode,
                (*file).f_mapping,
            )
        };

        // A file whose `open()` has failed has lost them.
        if inode.is_null() {
            return Err(EINVAL);
        }
        // SAFETY: The inode of a file is valid.
        if mapping != unsafe { &raw mut (*inode).i_data } {
            return Err(EINVAL);
        }
        let mapping = NonNull::new(mapping).ok_or(EINVAL)?;

        // SAFETY: The path of a file that has an inode is valid.
        unsafe { bindings::path_get(&path) };

        // INVARIANT: We just got a reference to `path`. The inode of a file is that of its path,
        // see `do_dentry_open()`, and `mapping` is a field of it.
        Ok(Self { path, mapping })
    }

    /// Returns a number that is the same for those whose [`Self::unmap_all`] does the same.
    ///
    /// It is an address in the kernel, and not for user space to see.
    #[inline]
    pub fn id(&self) -> usize {
        self.mapping.as_ptr().addr()
    }

    /// Unmaps all pages from the VMAs that map the file.
    ///
    /// The VMAs stay. The next access to a page is a fault like the first one was. To take the
    /// pages away for good, therefore first make sure that no page is inserted any more, neither by
    /// faults to come nor by those that are being handled, for example by a flag and a lock that
    /// [`VmOps::fault`] takes.
    ///
    /// This includes the VMAs of all files that were opened by way of the same inode, that is,
    /// usually, the same device node.
    ///
    /// May sleep. Does not take the `mmap_lock` of any process.
    ///
    /// C function: `unmap_mapping_range()`
    ///
    /// [`VmOps::fault`]: crate::mm::virt::VmOps::fault
    pub fn unmap_all(&self) {
        // SAFETY: By the type invariants, this is part of an inode that we have a reference to. A
        // length of 0 means all that there is from offset 0 on.
        unsafe { bindings::unmap_mapping_range(self.mapping.as_ptr(), 0, 0, 1) };
    }
}

impl Drop for FileMapping {
    fn drop(&mut self) {
        // SAFETY: By the type invariants, we own a reference.
        unsafe { bindings::path_put(&self.path) };
    }
}

// SAFETY: A reference to a path can be put by any thread.
unsafe impl Send for FileMapping {}

// SAFETY: `unmap_mapping_range()` can be called by several threads at once, and the fields are
// never changed.
unsafe impl Sync for FileMapping {}
