// SPDX-License-Identifier: GPL-2.0

//! Rust sample driver that lets user space map the memory behind a BAR for peer-to-peer DMA.
//!
//! User space maps `/dev/p2pmem<N>` as it does `p2pmem/allocate` in sysfs. The administrator binds
//! devices to the driver through `driver_override`.

use kernel::{
    device::Core,
    memremap::CacheMode,
    pci::{
        self,
        p2pdma::mmap::{
            self,
            Lockdown,
            Source, //
        }, //
    },
    prelude::*, //
};

/// The BAR with the memory.
const BAR: u32 = 2;

struct P2pmem;

#[vtable]
impl mmap::Operations for P2pmem {
    type RegistrationData<'a> = ();

    const NAME: &'static CStr = c"p2pmem";
    // The administrator chooses the device, whose BAR may contain registers.
    const LOCKDOWN: Lockdown = Lockdown::Refuse;
}

impl P2pmem {
    fn bind<'bound>(
        pdev: &'bound pci::Device<Core<'_>>,
    ) -> Result<mmap::Registration<'bound, Self>> {
        pdev.request_region(BAR, c"rust_driver_p2pmem")?;
        pdev.enable_device_mem()?;

        let mode = if pdev.resource_is_prefetchable(BAR)? {
            CacheMode::WriteCombine
        } else {
            CacheMode::Uncached
        };
        let len = pdev.resource_len(BAR)?;
        let pagemap = pdev.p2pdma_pagemap(BAR, 0..len, mode)?;
        let sources = [Source::pagemap(c"memory", pagemap)];

        mmap::Registration::new(pdev, &sources, |_| Ok(()))
    }
}

// No device is bound to the driver automatically, so there are no device IDs.
kernel::pci_device_table!(PCI_TABLE, <P2pmem as pci::Driver>::IdInfo, []);

impl pci::Driver for P2pmem {
    type IdInfo = ();
    // When the device is unbound, this is dropped, which removes the node and revokes the memory.
    type Data<'bound> = mmap::Registration<'bound, Self>;

    const ID_TABLE: pci::IdTable<Self::IdInfo> = &PCI_TABLE;

    fn probe<'bound>(
        pdev: &'bound pci::Device<Core<'_>>,
        _info: Option<&'bound Self::IdInfo>,
    ) -> impl PinInit<Self::Data<'bound>, Error> + 'bound {
        Self::bind(pdev)
    }
}

kernel::module_pci_driver! {
    type: P2pmem,
    name: "rust_driver_p2pmem",
    description: "Rust sample: memory of a BAR for peer-to-peer DMA",
    license: "GPL v2",
}
