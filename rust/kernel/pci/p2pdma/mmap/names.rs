// SPDX-License-Identifier: GPL-2.0

//! Names of device nodes, and their folders in debugfs.

use crate::{
    debugfs::Dir,
    id_pool::IdPool,
    new_mutex,
    prelude::*,
    str::CString,
    sync::{
        Mutex,
        SetOnce, //
    },
    time::{
        delay::fsleep,
        Delta, //
    }, //
};
use core::ops::Deref;

/// The numbers that are in use with a prefix.
struct Numbers {
    prefix: CString,
    pool: IdPool,
}

/// What all registrations share.
struct Shared {
    /// All prefixes that have been used. Entries are never removed.
    prefixes: KVec<Numbers>,
    /// The folder `p2pdma` in debugfs. It is never removed.
    folder: Option<Dir>,
}

fn shared() -> Result<&'static Mutex<Shared>> {
    static SHARED: SetOnce<Pin<KBox<Mutex<Shared>>>> = SetOnce::new();

    loop {
        if let Some(shared) = SHARED.as_ref() {
            return Ok(shared);
        }

        let new = new_mutex!(Shared {
            prefixes: KVec::new(),
            folder: None,
        });
        if !SHARED.populate(KBox::pin_init(new, GFP_KERNEL)?) {
            // Let the other thread finish, even if it has a lower priority.
            fsleep(Delta::from_millis(1));
        }
    }
}

/// A name that consists of a prefix and the lowest number that was free. Dropping it frees the
/// number.
pub(super) struct Name {
    name: CString,
    prefix: &'static CStr,
    nr: usize,
}

impl Name {
    pub(super) fn new(prefix: &'static CStr) -> Result<Self> {
        let without_nr = CString::try_from(prefix)?;
        let nr = {
            let prefixes = &mut shared()?.lock().prefixes;
            let at = match prefixes
                .iter()
                .position(|numbers| *numbers.prefix == *prefix)
            {
                Some(at) => at,
                None => {
                    let numbers = Numbers {
                        prefix: CString::try_from(prefix)?,
                        pool: IdPool::new(),
                    };

                    prefixes.push(numbers, GFP_KERNEL)?;
                    prefixes.len() - 1
                }
            };
            let pool = &mut prefixes.get_mut(at).ok_or(EINVAL)?.pool;

            if pool.find_unused_id(0).is_none() {
                let larger = pool.grow_request().ok_or(ENOSPC)?.realloc(GFP_KERNEL)?;

                pool.grow(larger);
            }
            pool.find_unused_id(0).ok_or(ENOSPC)?.acquire()
        };

        // From here on, `drop()` frees the number.
        let mut this = Self {
            name: without_nr,
            prefix,
            nr,
        };

        this.name = CString::try_from_fmt(fmt!("{prefix}{nr}"))?;
        Ok(this)
    }

    /// Creates the folder `p2pdma/NAME` in debugfs.
    pub(super) fn folder(&self) -> Result<Dir> {
        let mut shared = shared()?.lock();

        Ok(shared
            .folder
            .get_or_insert_with(|| Dir::new(c"p2pdma"))
            .subdir(self))
    }
}

impl Deref for Name {
    type Target = CStr;

    fn deref(&self) -> &CStr {
        &self.name
    }
}

impl Drop for Name {
    fn drop(&mut self) {
        let Ok(shared) = shared() else {
            return;
        };
        let mut shared = shared.lock();

        if let Some(numbers) = shared
            .prefixes
            .iter_mut()
            .find(|numbers| *numbers.prefix == *self.prefix)
        {
            numbers.pool.release_id(self.nr);
        }
    }
}
