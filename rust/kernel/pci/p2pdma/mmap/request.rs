// SPDX-License-Identifier: GPL-2.0

//! Ioctls.

use super::{
    context::Context,
    domain::Active,
    source::Usage,
    Operations, //
};
use crate::{
    ioctl::{
        _IOC_DIR,
        _IOC_SIZE, //
    },
    pci::{
        self,
        p2pdma::{
            Endpoint,
            EndpointLock, //
        }, //
    },
    prelude::*,
    transmute::{
        AsBytes,
        FromBytes, //
    },
    uaccess::{
        UserPtr,
        UserSlice, //
    },
    uapi, //
};
use core::marker::PhantomData;

/// The largest argument of an ioctl, in bytes.
pub(super) const MAX_ARG: usize = 128;

/// A call of `ioctl()` on an open file, with a copy of its argument.
pub struct Request<'r, T> {
    context: &'r Context,
    cmd: u32,
    arg: &'r mut [u8],
    /// The offset of the object that this call has allocated.
    allocated: Option<u64>,
    _operations: PhantomData<fn() -> T>,
}

impl<T: Operations> Request<'_, T> {
    /// Handles an ioctl of a file that is open: copies the argument, calls `T::ioctl`, and copies
    /// the argument back.
    pub(super) fn handle(context: &Context, cmd: u32, arg: usize) -> Result<isize> {
        if !T::IOCTLS.contains(&cmd) {
            return Err(ENOTTY);
        }

        let mut buffer = [0u8; MAX_ARG];
        let buffer = buffer.get_mut(.._IOC_SIZE(cmd)).ok_or(ENOTTY)?;
        let (mut reader, mut writer) =
            UserSlice::new(UserPtr::from_addr(arg), buffer.len()).reader_writer();

        if _IOC_DIR(cmd) & uapi::_IOC_WRITE != 0 {
            reader.read_slice(buffer)?;
        }
        let mut request = Request::<T> {
            context,
            cmd,
            arg: buffer,
            allocated: None,
            _operations: PhantomData,
        };

        let done = T::ioctl(&mut request).and_then(|()| {
            if _IOC_DIR(cmd) & uapi::_IOC_READ != 0 {
                writer.write_slice(request.arg)?;
            }
            Ok(0)
        });

        done.inspect_err(|_| request.undo())
    }

    /// Returns the number of the ioctl, one of `T::IOCTLS`.
    #[inline]
    pub fn cmd(&self) -> u32 {
        self.cmd
    }

    /// Returns the field at byte `offset` of the argument.
    ///
    /// # Errors
    ///
    /// `EINVAL` if there is no such field.
    pub fn get<U: FromBytes + Copy>(&self, offset: usize) -> Result<U> {
        let bytes = self.arg.get(offset..).ok_or(EINVAL)?;

        U::from_bytes_copy(bytes.get(..size_of::<U>()).ok_or(EINVAL)?).ok_or(EINVAL)
    }

    /// Sets the field at byte `offset` of the argument.
    ///
    /// The argument is copied to user space if the ioctl succeeds and its number has `_IOC_READ`.
    ///
    /// # Errors
    ///
    /// `EINVAL` if there is no such field.
    pub fn set<U: AsBytes>(&mut self, offset: usize, value: U) -> Result {
        let bytes = self.arg.get_mut(offset..).ok_or(EINVAL)?;

        bytes
            .get_mut(..size_of::<U>())
            .ok_or(EINVAL)?
            .copy_from_slice(value.as_bytes());
        Ok(())
    }

    /// Calls `f` with the open file and the registration data, which stay valid during the call.
    ///
    /// Dropping the registration, and hence unbinding the device, waits for `f`. So `f` must
    /// neither access user memory, nor wait for user space, nor take the lock of the device, nor
    /// drop the registration.
    ///
    /// # Errors
    ///
    /// `ENODEV` if the registration has been dropped, and the errors of `f`.
    pub fn enter<R>(
        &mut self,
        f: impl for<'d, 'a> FnOnce(&mut OpenFile<'_>, &'d T::RegistrationData<'a>) -> Result<R>,
    ) -> Result<R> {
        let active = self.context.domain().enter()?;
        let mut file = OpenFile {
            context: self.context,
            active: &active,
            allocated: &mut self.allocated,
        };

        // SAFETY: The context is that of a file of `Node<T>`. So `Registration::<T>::new` has
        // created its domain.
        unsafe { active.with_data::<T, _>(|data| f(&mut file, data)) }
    }

    /// Like [`Request::enter`], with another PCI function, which stays bound during the call.
    ///
    /// This locks `peer`, and waits for the lock if another task has it. It takes the lock before
    /// it enters: otherwise two devices that query each other while both are being unbound could
    /// deadlock.
    ///
    /// # Errors
    ///
    /// `EBUSY` if `peer` has no driver, `EINTR` if a signal arrives while it waits, and those of
    /// [`Request::enter`].
    pub fn enter_with_peer<R>(
        &mut self,
        peer: &pci::Device,
        f: impl for<'d, 'a> FnOnce(
            &mut OpenFile<'_>,
            &'d T::RegistrationData<'a>,
            Endpoint<'_>,
        ) -> Result<R>,
    ) -> Result<R> {
        let lock = EndpointLock::new_interruptible(peer)?;

        self.enter(|file, data| f(file, data, lock.endpoint()))
    }

    /// Frees the object that was allocated. User space has not received its offset.
    fn undo(&self) {
        if let Some(offset) = self.allocated {
            let _ = self.context.free(offset);
        }
    }
}

/// An open file, while its registration exists.
pub struct OpenFile<'r> {
    context: &'r Context,
    active: &'r Active<'r>,
    allocated: &'r mut Option<u64>,
}

impl OpenFile<'_> {
    /// Returns a source of the registration by its number, the index in `sources` of
    /// [`Registration::new`](super::Registration::new).
    ///
    /// # Errors
    ///
    /// `EINVAL` if there is no such source.
    pub fn memory(&mut self, source: usize) -> Result<Memory<'_>> {
        self.active.source(source)?;
        Ok(Memory {
            context: self.context,
            active: self.active,
            allocated: self.allocated,
            source,
        })
    }

    /// Frees the object that is mapped at `offset`, in bytes.
    ///
    /// The object cannot be mapped any more. Its memory is free again when it is neither mapped nor
    /// under DMA any more.
    ///
    /// # Errors
    ///
    /// `ENOENT` if there is no such object.
    pub fn free(&self, offset: u64) -> Result {
        self.context.free(offset)
    }

    /// Returns the limit of the file, and what is allocated for it from all sources.
    pub fn usage(&self) -> Usage {
        self.context.usage()
    }

    /// Lowers the limit of the file to `limit` bytes.
    ///
    /// `limit` may be lower than what is allocated already.
    ///
    /// # Errors
    ///
    /// `EPERM` if `limit` is higher than the present limit.
    pub fn lower_limit(&self, limit: usize) -> Result {
        self.context.lower_limit(limit)
    }
}

/// A source of memory, on behalf of an open file.
pub struct Memory<'r> {
    context: &'r Context,
    active: &'r Active<'r>,
    allocated: &'r mut Option<u64>,
    source: usize,
}

impl Memory<'_> {
    /// Returns how much memory the source has, and how much of it is in use.
    pub fn usage(&self) -> Usage {
        self.active.usage(self.source).unwrap_or_default()
    }

    /// Allocates an object of `size` bytes, and returns the offset, in bytes, at which to map it.
    ///
    /// The memory is cleared, unless this open file was the last to use it. The object exists until
    /// [`OpenFile::free`] is called for it, or the file is closed. If the ioctl fails, or if its
    /// argument cannot be copied to user space, the object is freed again. A request can allocate
    /// one object.
    ///
    /// May sleep.
    ///
    /// # Errors
    ///
    /// - `EINVAL` if the size is 0 or not a multiple of the page size, or if the request has
    ///   allocated an object already.
    /// - `EDQUOT` if the limit of the file would be exceeded.
    /// - `ENOSPC` if the source does not have that much free memory, or if all offsets have been
    ///   used.
    /// - `ENODEV` if the registration is being dropped.
    /// - `EINTR` if the task is being killed.
    /// - `ENOMEM` if the kernel does not have enough memory for its bookkeeping.
    pub fn alloc(&mut self, size: usize) -> Result<u64> {
        if self.allocated.is_some() {
            return Err(EINVAL);
        }
        let offset = self.context.alloc(self.active, self.source, size)?;

        *self.allocated = Some(offset);
        Ok(offset)
    }
}
