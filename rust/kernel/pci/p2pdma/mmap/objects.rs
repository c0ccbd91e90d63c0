// SPDX-License-Identifier: GPL-2.0

//! The ioctls of `include/uapi/linux/p2pmem.h`, by which user space allocates objects.

use super::{
    context::Context,
    ObjectSize, //
};
use crate::{
    ioctl::{
        _IOC_SIZE,
        _IOW,
        _IOWR, //
    },
    page::PAGE_SIZE,
    prelude::*,
    transmute::{
        AsBytes,
        FromBytes, //
    },
    uaccess::{
        UserPtr,
        UserSlice, //
    },
    uapi::{
        self,
        p2pmem_alloc,
        p2pmem_free,
        p2pmem_info,
        p2pmem_limit, //
    }, //
};

const MAGIC: u32 = uapi::P2PMEM_IOC_MAGIC;
const ALLOC: u32 = _IOWR::<p2pmem_alloc>(MAGIC, 0);
const FREE: u32 = _IOW::<p2pmem_free>(MAGIC, 1);
const LIMIT: u32 = _IOW::<p2pmem_limit>(MAGIC, 2);
const INFO: u32 = _IOWR::<p2pmem_info>(MAGIC, 4);

/// Returns whether [`ioctl`] handles `cmd`.
pub(super) const fn handles(cmd: u32) -> bool {
    matches!(cmd, ALLOC | FREE | LIMIT | INFO)
}

/// Implements the traits for copying an argument from and to user space.
macro_rules! argument {
    ($($type:ty),*) => { $(
        // SAFETY: The structure consists of integers, for which all bit patterns are valid.
        unsafe impl FromBytes for $type {}

        // SAFETY: The structure consists of integers, and has no padding: its fields are aligned
        // explicitly.
        unsafe impl AsBytes for $type {}
    )* };
}

argument!(p2pmem_alloc, p2pmem_free, p2pmem_info, p2pmem_limit);

/// Fails with `EINVAL` if a reserved field is not 0.
fn check_reserved(reserved: u64) -> Result {
    if reserved != 0 {
        return Err(EINVAL);
    }
    Ok(())
}

/// Returns the number of the source for a type of memory, and the size of its objects.
fn source_of(types: &[ObjectSize], ty: u32) -> Result<(usize, ObjectSize)> {
    let source = usize::try_from(ty)?;

    Ok((source, *types.get(source).ok_or(EINVAL)?))
}

/// Allocates an object, and returns its offset.
fn alloc(context: &Context, types: &[ObjectSize], arg: &p2pmem_alloc) -> Result<u64> {
    let (source, object_size) = source_of(types, arg.type_)?;

    check_reserved(arg.reserved.into())?;
    if object_size == ObjectSize::Page && arg.size != PAGE_SIZE as u64 {
        return Err(EINVAL);
    }

    let active = context.domain().enter()?;
    active.source(source).map_err(|_| EOPNOTSUPP)?;
    context.alloc(&active, source, usize::try_from(arg.size)?)
}

fn free(context: &Context, arg: &p2pmem_free) -> Result {
    check_reserved(arg.reserved)?;

    let _active = context.domain().enter()?;
    context.free(arg.offset)
}

fn lower_limit(context: &Context, arg: &p2pmem_limit) -> Result {
    check_reserved(arg.reserved)?;

    let _active = context.domain().enter()?;
    context.lower_limit(usize::try_from(arg.size)?)
}

fn info(context: &Context, types: &[ObjectSize], arg: &mut p2pmem_info) -> Result {
    let (source, _) = source_of(types, arg.type_)?;

    check_reserved(arg.reserved.into())?;

    let active = context.domain().enter()?;
    // The device may not have this type of memory.
    let memory = active.usage(source).unwrap_or_default();
    let own = context.usage();

    arg.size = memory.size as u64;
    arg.used = memory.used as u64;
    arg.limit = own.size as u64;
    arg.allocated = own.used as u64;
    Ok(())
}

/// Handles one of these ioctls, or returns [`None`] if `cmd` is none of them.
///
/// This is not generic, and so compiled into the kernel only.
pub(super) fn ioctl(
    context: &Context,
    types: &[ObjectSize],
    cmd: u32,
    arg: usize,
) -> Option<Result> {
    let user = UserSlice::new(UserPtr::from_addr(arg), _IOC_SIZE(cmd));

    match cmd {
        ALLOC => Some(ioctl_alloc(context, types, user)),
        FREE => Some(user.reader().read().and_then(|arg| free(context, &arg))),
        LIMIT => Some(
            user.reader()
                .read()
                .and_then(|arg| lower_limit(context, &arg)),
        ),
        INFO => Some(ioctl_info(context, types, user)),
        _ => None,
    }
}

fn ioctl_alloc(context: &Context, types: &[ObjectSize], user: UserSlice) -> Result {
    let (mut reader, mut writer) = user.reader_writer();
    let mut arg = reader.read::<p2pmem_alloc>()?;

    arg.offset = alloc(context, types, &arg)?;
    writer.write(&arg).inspect_err(|_| {
        // User space has not received the offset.
        let _ = context.free(arg.offset);
    })
}

fn ioctl_info(context: &Context, types: &[ObjectSize], user: UserSlice) -> Result {
    let (mut reader, mut writer) = user.reader_writer();
    let mut arg = reader.read::<p2pmem_info>()?;

    info(context, types, &mut arg)?;
    writer.write(&arg)
}
