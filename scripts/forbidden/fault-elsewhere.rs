// SPDX-License-Identifier: GPL-2.0
// error: E0277
//! A fault cannot be handled by another thread.

use core::ops::Range;
use kernel::{
    fs::File,
    memremap::DeviceFolio,
    miscdevice::{MiscDevice, MiscDeviceRegistration, MiscFile},
    mm::virt::{FaultResult, VmFault, VmOps, VmaDesc},
    prelude::*,
    sync::{aref::ARef, Arc, ArcBorrow},
};

struct Mine(ARef<DeviceFolio>);

#[vtable]
impl MiscDevice for Mine {
    type Ptr = Arc<Self>;
    type RegistrationData = ();

    fn open(_: &File, _: &MiscDeviceRegistration<'_, Self>) -> Result<Arc<Self>> {
        Err(ENODEV)
    }

    fn mmap_prepare(
        me: ArcBorrow<'_, Self>,
        _: &File,
        desc: &VmaDesc<MiscFile<Self>>,
    ) -> Result {
        prepare(&me, desc)
    }
}

struct Mapping(ARef<DeviceFolio>);

impl VmOps for Mapping {
    type File = MiscFile<Mine>;

    fn mapped(me: ArcBorrow<'_, Mine>, _: Range<usize>, _: usize) -> Result<Arc<Self>> {
        Ok(Arc::new(Self(me.0.clone()), GFP_KERNEL)?)
    }

    fn fault(this: ArcBorrow<'_, Self>, fault: &VmFault) -> FaultResult {
        fault.insert_page(&this.0, 0)
    }
}

fn prepare(_: &Mine, _: &VmaDesc<MiscFile<Mine>>) -> Result {
    Ok(())
}

fn needs_send<T: Send>(_: T) {}

fn pass_on(fault: &VmFault) {
    needs_send(fault);
}

module! {
    type: Forbidden,
    name: "forbidden",
    description: "Is not run",
    license: "GPL v2",
}

struct Forbidden;

impl kernel::Module for Forbidden {
    fn init(_: &'static ThisModule) -> Result<Self> {
        Ok(Self)
    }
}
