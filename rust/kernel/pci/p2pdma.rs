// SPDX-License-Identifier: GPL-2.0

//! Peer-to-peer DMA between PCI devices.
//!
//! A *provider* is the driver of a device that has memory behind one of its BARs. A *client* is the
//! driver of a device that reads or writes this memory by DMA. An *orchestrator* chooses a provider
//! for its clients with [`find`], [`distance`] and [`map_type`].
//!
//! A provider creates `struct page`s for its memory in one of two ways:
//!
//! - [`Device::p2pdma_add_resource`] adds the memory to the pool of the device. The PCI core
//!   allocates from the pool: for the driver ([`Pool::alloc`]), for other drivers that find the
//!   provider, and for user space through `p2pmem/allocate` in sysfs.
//! - [`Device::p2pdma_pagemap`] creates a [`Pagemap`], from which only the driver allocates.
//!
//! The module [`mmap`] lets user space map the memory of both.
//!
//! Peer-to-peer memory is MMIO: the CPU may access it through I/O accessors only. It may be mapped
//! write-combining: the device then sees writes by the CPU late, unless a write barrier follows.
//!
//! C header: [`include/linux/pci-p2pdma.h`](srctree/include/linux/pci-p2pdma.h)
//!
//! Reference: <https://docs.kernel.org/driver-api/pci/p2pdma.html>
//!
//! [`Device::p2pdma_add_resource`]: super::Device::p2pdma_add_resource
//! [`Device::p2pdma_pagemap`]: super::Device::p2pdma_pagemap
//! [`Pagemap`]: crate::memremap::Pagemap

mod bar;
pub mod mmap;
mod owner;
mod pool;
mod topology;

pub use self::{
    owner::Owner,
    pool::{
        Mem,
        Pool, //
    },
    topology::{
        distance,
        find,
        map_type,
        Endpoint,
        EndpointLock,
        MapType, //
    },
};
