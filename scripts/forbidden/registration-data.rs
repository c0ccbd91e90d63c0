// SPDX-License-Identifier: GPL-2.0
// error: lifetime
//! The data of a misc device, which files may keep, are not bound to a device.

use kernel::{
    fs::File,
    miscdevice::{MiscDevice, MiscDeviceRegistration},
    pci::p2pdma,
    prelude::*,
    sync::Arc,
};

include!("frame/module.rs");

struct Mine<'a>(p2pdma::Pool<'a>);

#[vtable]
impl<'a> MiscDevice for Mine<'a> {
    type Ptr = Arc<()>;
    type RegistrationData = p2pdma::Pool<'a>;

    fn open(_: &File, _: &MiscDeviceRegistration<'_, Self>) -> Result<Arc<()>> {
        Err(ENODEV)
    }
}
