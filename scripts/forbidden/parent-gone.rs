// SPDX-License-Identifier: GPL-2.0
// error: E0624
//! The parent of a device that may have been deleted may be gone.

use kernel::{auxiliary, device::Device};

fn parent(adev: &auxiliary::Device) -> &Device {
    adev.parent()
}
