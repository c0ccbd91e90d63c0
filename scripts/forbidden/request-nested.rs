// SPDX-License-Identifier: GPL-2.0
// error: E0500 E0501
//! An ioctl that uses the memory cannot lock another device.

use kernel::{
    device::Bound,
    pci::{
        self,
        p2pdma::mmap::{Lockdown, Operations, Request},
    },
    prelude::*,
};

struct Mine;

#[vtable]
impl Operations for Mine {
    type RegistrationData<'a> = &'a pci::Device<Bound>;

    const NAME: &'static CStr = c"mine";
    const LOCKDOWN: Lockdown = Lockdown::Allow;
}

fn nested(request: &mut Request<'_, Mine>, peer: &pci::Device) -> Result {
    request.enter(|_, _| request.enter_with_peer(peer, |_, _, _| Ok(())))
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
