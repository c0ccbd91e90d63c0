// SPDX-License-Identifier: GPL-2.0
// error: E0308
//! A registration needs the device that the driver itself is bound to, as only callbacks of the
//! driver get it: the driver's code exists until that device is unbound.

use kernel::{
    device::Bound,
    pci::{
        self,
        p2pdma::mmap::{Lockdown, Operations, Registration, Source},
    },
    prelude::*,
};

struct Mine;

#[vtable]
impl Operations for Mine {
    type RegistrationData<'a> = ();

    const NAME: &'static CStr = c"mine";
    const LOCKDOWN: Lockdown = Lockdown::Allow;
}

fn register<'a>(
    parent: &'a pci::Device<Bound>,
    sources: &[Source<'a>],
) -> Result<Registration<'a, Mine>> {
    Registration::new(parent, sources, |_| Ok(()))
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
