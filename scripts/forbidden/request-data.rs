// SPDX-License-Identifier: GPL-2.0
// error: lifetime
//! An ioctl cannot keep the registration data.

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

fn keep<'r>(request: &'r mut Request<'_, Mine>) -> Result<&'r pci::Device<Bound>> {
    request.enter(|_, pdev| Ok(*pdev))
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
