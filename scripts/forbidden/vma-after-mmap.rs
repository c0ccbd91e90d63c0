// SPDX-License-Identifier: GPL-2.0
// error: lifetime
//! A VMA that is being prepared cannot be kept for later.

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

fn prepare<'a>(_: &Mine, desc: &'a VmaDesc<MiscFile<Mine>>) -> Result {
    let kept: &'static VmaDesc<MiscFile<Mine>> = desc;

    pr_info!("{}\n", kept.size());
    Ok(())
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
