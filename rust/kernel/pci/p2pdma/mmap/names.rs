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

/// The end of the numbers that a driver can ask for. The table of numbers has a bit for each.
const MAX_WANTED: usize = 1024;

impl Numbers {
    /// Takes the number `wanted` if it is free, else the lowest one that is.
    fn take(&mut self, wanted: Option<usize>) -> Result<usize> {
        let first = wanted.filter(|nr| *nr < MAX_WANTED).unwrap_or(0);

        while first >= self.pool.capacity() || self.pool.find_unused_id(0).is_none() {
            let larger = self
                .pool
                .grow_request()
                .ok_or(ENOSPC)?
                .realloc(GFP_KERNEL)?;

            self.pool.grow(larger);
        }
        if let Some(id) = self.pool.find_unused_id(first) {
            if id.as_usize() == first {
                return Ok(id.acquire());
            }
        }
        Ok(self.pool.find_unused_id(0).ok_or(ENOSPC)?.acquire())
    }
}

/// A name that consists of a prefix and a number. Dropping it frees the number.
pub(super) struct Name {
    name: CString,
    prefix: &'static CStr,
    nr: usize,
}

impl Name {
    pub(super) fn new(prefix: &'static CStr, wanted: Option<usize>) -> Result<Self> {
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

            prefixes.get_mut(at).ok_or(EINVAL)?.take(wanted)?
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
