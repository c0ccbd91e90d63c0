// SPDX-License-Identifier: GPL-2.0

//! Mapping peer-to-peer DMA memory into user space.
//!
//! A [`Registration`] is a device node through which user space maps memory of a device. The memory
//! comes from [`Pagemap`]s or from the [`Pool`] of the device. There are two ways to map it:
//!
//! - Mapping a file at offset 0 allocates memory. The memory is free again when it is neither
//!   mapped nor under DMA any more. `p2pmem/allocate` in sysfs does the same.
//! - The ioctl `P2PMEM_IOC_ALLOC` of `include/uapi/linux/p2pmem.h` allocates an object and returns
//!   the offset to map it at. The object exists until `P2PMEM_IOC_FREE`, or until the file is
//!   closed. After that, its memory is free again when it is neither mapped nor under DMA any more.
//!
//! Memory is clear when it is allocated, unless the same open file was the last to use it. After a
//! file has been closed, a worker clears the memory that the file has left. An allocation clears
//! the memory that the worker has not cleared. Data can leak to another user in three cases:
//!
//! - Code that allocates memory of a [`Pool`] in another way, for example through
//!   `p2pmem/allocate`, gets it uncleared.
//! - Writes of a peer device that are still on the bus when its DMA has completed may arrive after
//!   the zeros.
//! - If the contents of clear memory change because the device is reset or suspended, the memory is
//!   not cleared again.
//!
//! Dropping the registration revokes all memory: from then on, accesses to mappings get `SIGBUS`.
//! Open files and mappings do not delay this. A reader of the debugfs files, which is root, can:
//! `debugfs_remove()` waits until the data have been copied to the reader. When the device is
//! unbound, the release of the memory waits for DMA that is under way, and for folios that the
//! driver keeps.
//!
//! # Locking
//!
//! - `mmap_lock` or the lock of the VMA -> `Backing::extents` -> page table lock
//! - `mmap_lock` -> `Domain::srcu` (read side) -> `Domain::backings`
//! - `misc_mtx` -> `Domain::srcu` (read side) -> `Domain::inodes`
//! - device lock of a peer -> `Domain::srcu` (read side)
//! - debugfs reader -> `Domain::srcu` (read side) -> device lock, by `device_trylock()` only
//! - device lock -> `Shared` of names.rs -> locks of debugfs
//! - device lock -> `Domain::revoking` -> `Domain::backings`
//! - device lock -> `Domain::revoking` -> `Backing::extents`
//! - device lock -> `Domain::revoking` -> `Domain::inodes` -> `i_mmap_rwsem` -> page table lock
//!
//! No lock is taken with `Domain::gone` held. `Domain::backings` and `Backing::extents` are also
//! taken without the locks before them.
//!
//! With the lock of the device that the driver is bound to held, and also that of the PCI function
//! if the function is being unbound, `Domain::revoke` waits for the readers of `Domain::srcu`, and
//! removing the debugfs files waits for their readers. So code in the scope of an `Active` must not
//! access user memory, which could wait for user space. It must not wait for the lock of a device
//! either.
//! [`PageAllocator::free`] may take raw spin locks only.
//!
//! # Examples
//!
//! A driver whose device has all of BAR 2 for user space:
//!
//! ```
//! use kernel::{
//!     device::Core,
//!     memremap::CacheMode,
//!     pci::{
//!         self,
//!         p2pdma::mmap::{
//!             self,
//!             Lockdown,
//!             Source, //
//!         }, //
//!     },
//!     prelude::*, //
//! };
//!
//! struct Example;
//!
//! #[vtable]
//! impl mmap::Operations for Example {
//!     type RegistrationData<'a> = ();
//!
//!     const NAME: &'static CStr = c"example";
//!     const LOCKDOWN: Lockdown = Lockdown::Allow;
//! }
//!
//! # kernel::pci_device_table!(TABLE, <Example as pci::Driver>::IdInfo, []);
//! impl pci::Driver for Example {
//!     type IdInfo = ();
//!     type Data<'bound> = mmap::Registration<'bound, Self>;
//!
//!     const ID_TABLE: pci::IdTable<Self::IdInfo> = &TABLE;
//!
//!     fn probe<'bound>(
//!         pdev: &'bound pci::Device<Core<'_>>,
//!         _info: Option<&'bound Self::IdInfo>,
//!     ) -> impl PinInit<Self::Data<'bound>, Error> + 'bound {
//!         Self::bind(pdev)
//!     }
//! }
//!
//! impl Example {
//!     fn bind<'bound>(
//!         pdev: &'bound pci::Device<Core<'_>>,
//!     ) -> Result<mmap::Registration<'bound, Self>> {
//!         pdev.enable_device_mem()?;
//!
//!         let len = pdev.resource_len(2)?;
//!         let pagemap = pdev.p2pdma_pagemap(2, 0..len, CacheMode::Uncached)?;
//!         let sources = [Source::pagemap(c"all", pagemap)];
//!
//!         mmap::Registration::new(pdev, &sources, |_| Ok(()))
//!     }
//! }
//! ```
//!
//! [`Pagemap`]: crate::memremap::Pagemap
//! [`PageAllocator::free`]: crate::memremap::PageAllocator::free
//! [`Pool`]: super::Pool

use crate::prelude::*;

mod cleaner;
mod context;
mod debugfs;
mod domain;
mod names;
mod object;
mod objects;
mod registration;
mod request;
mod source;

pub use self::{
    registration::Registration,
    request::Request,
    source::Source, //
};

/// Whether user space may open the node of a [`Registration`] when the kernel is locked down
/// against accesses to PCI devices, `LOCKDOWN_PCI_ACCESS`.
#[derive(Copy, Clone, Debug, Eq, PartialEq)]
pub enum Lockdown {
    /// User space may open the node. Choose this if the sources are known to be memory, without
    /// registers.
    Allow,
    /// `open()` fails with `EPERM`. Choose this if the sources may contain registers: through
    /// these, user space could make the device access any memory.
    Refuse,
}

/// How large the objects of a type of memory may be.
#[derive(Copy, Clone, Debug, Eq, PartialEq)]
pub enum ObjectSize {
    /// Objects have any number of pages.
    Any,
    /// Objects have one page.
    Page,
}

/// The part of a device node that is up to the driver, see [`Registration`].
#[vtable]
pub trait Operations: Sized + Send + Sync + 'static {
    /// Data that the registration owns. They may borrow from the device that the driver is bound
    /// to.
    type RegistrationData<'a>: Send + Sync + 'a
    where
        Self: 'a;

    /// The name of the nodes, without the number that is appended. It must not end in a digit.
    const NAME: &'static CStr;

    /// The permissions of the nodes; 0 means `0o600`.
    const MODE: u16 = 0o660;

    /// Whether user space may open the nodes when the kernel is locked down.
    const LOCKDOWN: Lockdown;

    /// The object sizes that each type of memory allows. User space names a type by its index in
    /// this array, which is also the index of its source in the `sources` of [`Registration::new`].
    const TYPES: &'static [ObjectSize] = &[ObjectSize::Any];

    /// The numbers of the ioctls that [`Self::ioctl`] handles, in addition to those of
    /// `include/uapi/linux/p2pmem.h`, which each node has. Their arguments are at most 128 bytes
    /// large.
    ///
    /// Ioctls that the VFS handles itself, `FIGETBSZ` and `FIOCLEX` for example, do not reach
    /// drivers.
    const IOCTLS: &'static [u32] = &[];

    /// Returns how many bytes may be allocated for a file that is being opened.
    ///
    /// By default there is no limit other than the size of the memory. This is called with
    /// `misc_mtx` held, so it must not create or drop a registration.
    fn limit<'a>(_data: &Self::RegistrationData<'a>) -> usize {
        usize::MAX
    }

    /// Handles an ioctl, one of [`Self::IOCTLS`]. The abstraction handles the ioctls of
    /// `include/uapi/linux/p2pmem.h`, and fails all others with `ENOTTY`.
    ///
    /// May sleep.
    fn ioctl(_request: &mut Request<'_, Self>) -> Result {
        Err(ENOTTY)
    }
}
