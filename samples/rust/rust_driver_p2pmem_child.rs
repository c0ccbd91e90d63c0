// SPDX-License-Identifier: GPL-2.0

//! Rust sample of a driver that lets user space map memory of its parent for peer-to-peer DMA.
//!
//! Drivers of large devices are divided: the driver of the PCI function owns registers and BARs,
//! and registers devices on the auxiliary bus; the drivers of these devices offer the functions of
//! the hardware to the subsystems of the kernel. This module has both halves. The first one,
//! [`Function`], is bound to a PCI function. The second one, [`Memory`], offers all of BAR 2 as
//! `/dev/p2pmem-child<N>`.
//!
//! The administrator binds PCI functions to the driver through `driver_override`.

use kernel::{
    auxiliary,
    device::{
        Bound,
        Core, //
    },
    driver,
    memremap::CacheMode,
    pci::{
        self,
        p2pdma::mmap::{
            self,
            Lockdown,
            Source, //
        }, //
    },
    prelude::*,
    sync::atomic::{
        Atomic,
        Relaxed, //
    },
    types::ForLt,
    InPlaceModule, //
};

const MODULE_NAME: &CStr = <LocalModule as kernel::ModuleMetadata>::NAME;

/// The name of the auxiliary devices.
const CHILD: &CStr = c"memory";

/// The BAR with the memory.
const BAR: u32 = 2;

/// The registration of a child, which has no data.
type Child<'a> = auxiliary::Registration<'a, ForLt!(())>;

/// The driver of the PCI function.
struct Function;

impl Function {
    fn bind<'bound>(pdev: &'bound pci::Device<Core<'_>>) -> Result<Child<'bound>> {
        static NEXT_ID: Atomic<u32> = Atomic::new(0);

        pdev.request_region(BAR, c"rust_driver_p2pmem_child")?;
        pdev.enable_device_mem()?;

        Child::new(
            pdev.as_ref(),
            CHILD,
            NEXT_ID.fetch_add(1, Relaxed),
            MODULE_NAME,
            (),
        )
    }
}

// No device is bound to the driver automatically, so there are no device IDs.
kernel::pci_device_table!(PCI_TABLE, <Function as pci::Driver>::IdInfo, []);

impl pci::Driver for Function {
    type IdInfo = ();
    // When the function is unbound, this is dropped, which unbinds and deletes the child.
    type Data<'bound> = Child<'bound>;

    const ID_TABLE: pci::IdTable<Self::IdInfo> = &PCI_TABLE;

    fn probe<'bound>(
        pdev: &'bound pci::Device<Core<'_>>,
        _info: Option<&'bound Self::IdInfo>,
    ) -> impl PinInit<Self::Data<'bound>, Error> + 'bound {
        Self::bind(pdev)
    }
}

/// The driver of the child.
struct Memory;

#[vtable]
impl mmap::Operations for Memory {
    type RegistrationData<'a> = ();

    const NAME: &'static CStr = c"p2pmem-child";
    // The administrator chooses the device, whose BAR may contain registers.
    const LOCKDOWN: Lockdown = Lockdown::Refuse;
}

impl Memory {
    fn bind<'bound>(
        adev: &'bound auxiliary::Device<Core<'_>>,
    ) -> Result<mmap::Registration<'bound, Self>> {
        let pdev: &pci::Device<Bound> = adev.parent().try_into()?;
        let mode = if pdev.resource_is_prefetchable(BAR)? {
            CacheMode::WriteCombine
        } else {
            CacheMode::Uncached
        };
        let pagemap = adev.p2pdma_pagemap(BAR, 0..pdev.resource_len(BAR)?, mode)?;
        let sources = [Source::pagemap(c"memory", pagemap)];

        mmap::Registration::new(adev, &sources, |_| Ok(()))
    }
}

kernel::auxiliary_device_table!(
    AUX_TABLE,
    <Memory as auxiliary::Driver>::IdInfo,
    [(auxiliary::DeviceId::new(MODULE_NAME, CHILD), ())]
);

impl auxiliary::Driver for Memory {
    type IdInfo = ();
    // When the child is unbound, this is dropped, which removes the node and revokes the memory.
    type Data<'bound> = mmap::Registration<'bound, Self>;

    const ID_TABLE: auxiliary::IdTable<Self::IdInfo> = &AUX_TABLE;

    fn probe<'bound>(
        adev: &'bound auxiliary::Device<Core<'_>>,
        _info: &'bound Self::IdInfo,
    ) -> impl PinInit<Self::Data<'bound>, Error> + 'bound {
        Self::bind(adev)
    }
}

#[pin_data]
struct Module {
    // Dropped first: unbinding the functions deletes the children.
    #[pin]
    _function: driver::Registration<pci::Adapter<Function>>,
    #[pin]
    _memory: driver::Registration<auxiliary::Adapter<Memory>>,
}

impl InPlaceModule for Module {
    fn init(module: &'static kernel::ThisModule) -> impl PinInit<Self, Error> {
        try_pin_init!(Self {
            _function <- driver::Registration::new(MODULE_NAME, module),
            _memory <- driver::Registration::new(MODULE_NAME, module),
        })
    }
}

module! {
    type: Module,
    name: "rust_driver_p2pmem_child",
    description: "Rust sample: memory of a parent's BAR for peer-to-peer DMA",
    license: "GPL v2",
}
