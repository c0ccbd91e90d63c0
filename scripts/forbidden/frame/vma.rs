// SPDX-License-Identifier: GPL-2.0
// A misc device with the operations of a VMA. The including file has `prepare()`.

use kernel::{
    fs::File,
    memremap::DeviceFolio,
    miscdevice::{MiscDevice, MiscDeviceRegistration, MiscFile},
    mm::virt::{FaultResult, NewMapping, VmFault, VmOps, VmaDesc},
    prelude::*,
    sync::{aref::ARef, Arc, ArcBorrow},
};

include!("module.rs");

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

    fn mapped(me: ArcBorrow<'_, Mine>, _: &NewMapping) -> Result<Arc<Self>> {
        Ok(Arc::new(Self(me.0.clone()), GFP_KERNEL)?)
    }

    fn fault(_: ArcBorrow<'_, Self>, _: &VmFault) -> FaultResult {
        FaultResult::SigBus
    }
}
