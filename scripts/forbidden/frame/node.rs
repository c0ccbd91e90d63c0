// SPDX-License-Identifier: GPL-2.0
// A driver whose device node is called "mine".

use kernel::{
    device::{Bound, Core, Device},
    pci::{
        self,
        p2pdma::mmap::{Lockdown, Operations, Registration, Request, Source},
    },
    prelude::*,
};

include!("module.rs");

struct Mine;

#[vtable]
impl Operations for Mine {
    type RegistrationData<'a> = &'a pci::Device<Bound>;

    const NAME: &'static CStr = c"mine";
    const LOCKDOWN: Lockdown = Lockdown::Allow;
}
