// SPDX-License-Identifier: GPL-2.0
// error: E0308
//! A driver registers children in callbacks of the bus, and not later: see
//! auxiliary::Registration.

use kernel::{
    auxiliary::Registration,
    device::{Bound, Device},
    prelude::*,
    types::ForLt,
};

fn late(parent: &Device<Bound>) -> Result<Registration<'_, ForLt!(())>> {
    Registration::new(parent, c"child", 0, c"module", ())
}
