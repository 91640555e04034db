//! The few bpf(2) commands that aya does not offer over plain bytes: map elements, batches, links and object information.
//!
//! Every function takes borrowed descriptors and slices, checks the lengths that the kernel will read or write, and
//! returns the kernel's error untouched. Nothing outside this module calls bpf(2).

use std::ffi::{CStr, CString};
use std::io;
use std::mem;
use std::os::fd::{AsRawFd as _, BorrowedFd, FromRawFd as _, OwnedFd};
use std::os::unix::ffi::OsStrExt as _;
use std::path::Path;

use aya_obj::generated::{bpf_attr, bpf_cmd, bpf_insn, bpf_link_info, bpf_map_info, bpf_prog_info};
use nix::libc;

/// One bpf(2) call.
///
/// # Safety
///
/// Every pointer inside `attr` must be valid for what `cmd` reads and writes through it.
unsafe fn bpf(cmd: bpf_cmd, attr: &mut bpf_attr) -> io::Result<libc::c_long> {
    // SAFETY: attr is a live, zero-initialised union of exactly the size passed; the caller answers for its pointers.
    let ret = unsafe {
        libc::syscall(libc::SYS_bpf, cmd as libc::c_long, std::ptr::from_mut(attr), size_of::<bpf_attr>())
    };
    if ret < 0 { Err(io::Error::last_os_error()) } else { Ok(ret) }
}

fn zeroed() -> bpf_attr {
    // SAFETY: bpf_attr is a union of plain integers and arrays of them, for which all zero bytes is a value.
    unsafe { mem::zeroed() }
}

/// Turns the result of a descriptor-making command into an owned descriptor.
///
/// # Safety
///
/// `ret` must be the return value of a bpf(2) command that creates a descriptor which nobody else owns.
unsafe fn own(ret: libc::c_long) -> io::Result<OwnedFd> {
    let fd = i32::try_from(ret).map_err(io::Error::other)?;
    // SAFETY: the caller passes a descriptor that was just made for us.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

fn raw(fd: BorrowedFd<'_>) -> u32 {
    // Descriptors are never negative, so the cast keeps the value.
    fd.as_raw_fd().cast_unsigned()
}

fn c_path(path: &Path) -> io::Result<CString> {
    CString::new(path.as_os_str().as_bytes()).map_err(io::Error::other)
}

/// Opens a pinned map, program or link.
pub(crate) fn obj_get(path: &Path) -> io::Result<OwnedFd> {
    let path = c_path(path)?;
    let mut attr = zeroed();
    attr.__bindgen_anon_4.pathname = path.as_ptr() as u64;
    // SAFETY: pathname points to a NUL-terminated string that outlives the call; the result is a new descriptor.
    unsafe { own(bpf(bpf_cmd::BPF_OBJ_GET, &mut attr)?) }
}

/// Pins a map, program or link.
pub(crate) fn obj_pin(fd: BorrowedFd<'_>, path: &Path) -> io::Result<()> {
    let path = c_path(path)?;
    let mut attr = zeroed();
    attr.__bindgen_anon_4.pathname = path.as_ptr() as u64;
    attr.__bindgen_anon_4.bpf_fd = raw(fd);
    // SAFETY: pathname points to a NUL-terminated string that outlives the call.
    unsafe { bpf(bpf_cmd::BPF_OBJ_PIN, &mut attr) }.map(drop)
}

/// What a map is made of, for [`map_create`].
#[derive(Clone, Copy, Debug)]
pub(crate) struct MapDef {
    pub(crate) kind: u32,
    pub(crate) key_size: u32,
    pub(crate) value_size: u32,
    pub(crate) max_entries: u32,
    pub(crate) flags: u32,
}

/// Creates a map without BTF. `inner` is the template of a map of maps.
pub(crate) fn map_create(name: &str, def: &MapDef, inner: Option<BorrowedFd<'_>>) -> io::Result<OwnedFd> {
    let mut attr = zeroed();
    // SAFETY: map_create's variant of the union is plain data; the attr is all zero bytes.
    let create = unsafe { &mut attr.__bindgen_anon_1 };
    create.map_type = def.kind;
    create.key_size = def.key_size;
    create.value_size = def.value_size;
    create.max_entries = def.max_entries;
    create.map_flags = def.flags;
    create.inner_map_fd = inner.map_or(0, raw);
    // The kernel wants at most 15 bytes and a NUL, of [A-Za-z0-9_.].
    for (to, from) in create.map_name.iter_mut().take(15).zip(name.bytes()) {
        *to = libc::c_char::try_from(from).unwrap_or(0);
    }
    // SAFETY: the attr has no pointers; the result is a new descriptor.
    unsafe { own(bpf(bpf_cmd::BPF_MAP_CREATE, &mut attr)?) }
}

fn elem(fd: BorrowedFd<'_>, key: *const u8, value: *mut u8, flags: u64) -> bpf_attr {
    let mut attr = zeroed();
    // SAFETY: the variant is plain data in an all-zero union.
    let elem = unsafe { &mut attr.__bindgen_anon_2 };
    elem.map_fd = raw(fd);
    elem.key = key as u64;
    elem.__bindgen_anon_1.value = value as u64;
    elem.flags = flags;
    attr
}

/// Reads one value. The lengths must be those of the map (per-CPU values are counted whole).
pub(crate) fn map_lookup(fd: BorrowedFd<'_>, key: &[u8], value: &mut [u8]) -> io::Result<()> {
    let mut attr = elem(fd, key.as_ptr(), value.as_mut_ptr(), 0);
    // SAFETY: the caller (Table) has made key and value as long as the kernel's map says.
    unsafe { bpf(bpf_cmd::BPF_MAP_LOOKUP_ELEM, &mut attr) }.map(drop)
}

/// Writes one value; `flags` are `BPF_ANY`, `BPF_NOEXIST` or `BPF_EXIST`.
pub(crate) fn map_update(fd: BorrowedFd<'_>, key: &[u8], value: &[u8], flags: u64) -> io::Result<()> {
    let mut attr = elem(fd, key.as_ptr(), value.as_ptr().cast_mut(), flags);
    // SAFETY: the kernel only reads through both pointers; the caller (Table) has checked the lengths.
    unsafe { bpf(bpf_cmd::BPF_MAP_UPDATE_ELEM, &mut attr) }.map(drop)
}

/// Removes one row.
pub(crate) fn map_delete(fd: BorrowedFd<'_>, key: &[u8]) -> io::Result<()> {
    let mut attr = elem(fd, key.as_ptr(), std::ptr::null_mut(), 0);
    // SAFETY: the kernel reads the key, whose length the caller (Table) has checked.
    unsafe { bpf(bpf_cmd::BPF_MAP_DELETE_ELEM, &mut attr) }.map(drop)
}

/// Writes the key after `key` (or the first one) into `next`; false at the end.
pub(crate) fn map_next_key(fd: BorrowedFd<'_>, key: Option<&[u8]>, next: &mut [u8]) -> io::Result<bool> {
    let key = key.map_or(std::ptr::null(), <[u8]>::as_ptr);
    let mut attr = elem(fd, key, next.as_mut_ptr(), 0);
    // SAFETY: key (if any) is read and next written for the map's key size, which the caller (Table) has checked.
    match unsafe { bpf(bpf_cmd::BPF_MAP_GET_NEXT_KEY, &mut attr) } {
        Ok(_) => Ok(true),
        Err(error) if error.raw_os_error() == Some(libc::ENOENT) => Ok(false),
        Err(error) => Err(error),
    }
}

/// Where a batch begins: the kernel's own token, as wide as a key but at least four bytes.
pub(crate) type BatchToken = Vec<u8>;

/// Reads up to `count` rows into `keys` and `values`; returns how many and whether the map is at its end.
pub(crate) fn map_lookup_batch(
    fd: BorrowedFd<'_>,
    from: Option<&BatchToken>,
    next: &mut BatchToken,
    keys: &mut [u8],
    values: &mut [u8],
    count: u32,
) -> io::Result<(u32, bool)> {
    let mut attr = zeroed();
    attr.batch.in_batch = from.map_or(0, |token| token.as_ptr() as u64);
    attr.batch.out_batch = next.as_mut_ptr() as u64;
    attr.batch.keys = keys.as_mut_ptr() as u64;
    attr.batch.values = values.as_mut_ptr() as u64;
    attr.batch.count = count;
    attr.batch.map_fd = raw(fd);
    // SAFETY: the buffers hold count rows each and the tokens a key each (Table sizes them); all outlive the call.
    let result = unsafe { bpf(bpf_cmd::BPF_MAP_LOOKUP_BATCH, &mut attr) };
    // SAFETY: the kernel has written the count into the variant that was filled in above.
    let got = unsafe { attr.batch.count };
    match result {
        Ok(_) => Ok((got, false)),
        Err(error) if error.raw_os_error() == Some(libc::ENOENT) => Ok((got, true)),
        Err(error) => Err(error),
    }
}

/// A descriptor for the map with this id.
pub(crate) fn map_by_id(id: u32) -> io::Result<OwnedFd> {
    let mut attr = zeroed();
    attr.__bindgen_anon_6.__bindgen_anon_1.map_id = id;
    // SAFETY: the attr has no pointers; the result is a new descriptor.
    unsafe { own(bpf(bpf_cmd::BPF_MAP_GET_FD_BY_ID, &mut attr)?) }
}

/// A descriptor for the program with this id.
pub(crate) fn prog_by_id(id: u32) -> io::Result<OwnedFd> {
    let mut attr = zeroed();
    attr.__bindgen_anon_6.__bindgen_anon_1.prog_id = id;
    // SAFETY: the attr has no pointers; the result is a new descriptor.
    unsafe { own(bpf(bpf_cmd::BPF_PROG_GET_FD_BY_ID, &mut attr)?) }
}

/// Object information as the kernel reports it.
///
/// # Safety
///
/// `T` must be the kernel's information structure for this kind of descriptor: plain data, valid when all zero.
unsafe fn info<T>(fd: BorrowedFd<'_>) -> io::Result<T> {
    // SAFETY: the caller promises that all zero bytes is a T.
    let mut info: T = unsafe { mem::zeroed() };
    let mut attr = zeroed();
    attr.info.bpf_fd = raw(fd);
    attr.info.info_len = u32::try_from(size_of::<T>()).map_err(io::Error::other)?;
    attr.info.info = std::ptr::from_mut(&mut info) as u64;
    // SAFETY: the kernel writes at most info_len bytes into info, and no pointer inside it is set.
    unsafe { bpf(bpf_cmd::BPF_OBJ_GET_INFO_BY_FD, &mut attr) }?;
    Ok(info)
}

/// Kind, sizes, id and name of a map.
pub(crate) fn map_info(fd: BorrowedFd<'_>) -> io::Result<bpf_map_info> {
    // SAFETY: bpf_map_info is the kernel's structure for maps, plain integers throughout.
    unsafe { info(fd) }
}

/// Id, tag and name of a program.
pub(crate) fn prog_info(fd: BorrowedFd<'_>) -> io::Result<bpf_prog_info> {
    // SAFETY: bpf_prog_info is the kernel's structure for programs, plain integers throughout.
    unsafe { info(fd) }
}

/// Kind, program and place of a link.
pub(crate) fn link_info(fd: BorrowedFd<'_>) -> io::Result<bpf_link_info> {
    // SAFETY: bpf_link_info is the kernel's structure for links, plain integers throughout.
    unsafe { info(fd) }
}

/// Attaches a program to a TCX hook of a device, after those already there.
pub(crate) fn tcx_link_create(prog: BorrowedFd<'_>, ifindex: u32, attach_type: u32) -> io::Result<OwnedFd> {
    let mut attr = zeroed();
    attr.link_create.__bindgen_anon_1.prog_fd = raw(prog);
    attr.link_create.__bindgen_anon_2.target_ifindex = ifindex;
    attr.link_create.attach_type = attach_type;
    // SAFETY: the attr has no pointers; the result is a new descriptor.
    unsafe { own(bpf(bpf_cmd::BPF_LINK_CREATE, &mut attr)?) }
}

/// Attaches a program to a hook of a cgroup, after those already there; theirs and ours all run.
pub(crate) fn cgroup_link_create(
    prog: BorrowedFd<'_>,
    cgroup: BorrowedFd<'_>,
    attach_type: u32,
) -> io::Result<OwnedFd> {
    let mut attr = zeroed();
    attr.link_create.__bindgen_anon_1.prog_fd = raw(prog);
    attr.link_create.__bindgen_anon_2.target_fd = raw(cgroup);
    attr.link_create.attach_type = attach_type;
    // SAFETY: the attr has no pointers; the result is a new descriptor.
    unsafe { own(bpf(bpf_cmd::BPF_LINK_CREATE, &mut attr)?) }
}

/// Puts another program in a link's place in one step.
pub(crate) fn link_update(link: BorrowedFd<'_>, prog: BorrowedFd<'_>) -> io::Result<()> {
    let mut attr = zeroed();
    attr.link_update.link_fd = raw(link);
    attr.link_update.__bindgen_anon_1.new_prog_fd = raw(prog);
    // SAFETY: the attr has no pointers.
    unsafe { bpf(bpf_cmd::BPF_LINK_UPDATE, &mut attr) }.map(drop)
}

/// Takes a link off its hook at once, whoever else still holds it.
pub(crate) fn link_detach(link: BorrowedFd<'_>) -> io::Result<()> {
    let mut attr = zeroed();
    attr.link_detach.link_fd = raw(link);
    // SAFETY: the attr has no pointers.
    unsafe { bpf(bpf_cmd::BPF_LINK_DETACH, &mut attr) }.map(drop)
}

/// Makes a map read-only for user space.
pub(crate) fn map_freeze(fd: BorrowedFd<'_>) -> io::Result<()> {
    let mut attr = zeroed();
    attr.__bindgen_anon_2.map_fd = raw(fd);
    // SAFETY: the attr has no pointers.
    unsafe { bpf(bpf_cmd::BPF_MAP_FREEZE, &mut attr) }.map(drop)
}

/// Loads type information.
pub(crate) fn btf_load(btf: &[u8]) -> io::Result<OwnedFd> {
    let mut attr = zeroed();
    attr.__bindgen_anon_7.btf = btf.as_ptr() as u64;
    attr.__bindgen_anon_7.btf_size = u32::try_from(btf.len()).map_err(io::Error::other)?;
    // SAFETY: the kernel reads btf_size bytes from btf, which outlives the call; the result is a new descriptor.
    unsafe { own(bpf(bpf_cmd::BPF_BTF_LOAD, &mut attr)?) }
}

/// A program for [`prog_load`].
pub(crate) struct ProgDef<'a> {
    pub(crate) kind: u32,
    /// `enum bpf_attach_type`, for kinds of programs that are loaded for one hook alone; else 0.
    pub(crate) expected_attach_type: u32,
    pub(crate) name: &'a str,
    pub(crate) instructions: &'a [bpf_insn],
    pub(crate) license: &'a CStr,
    pub(crate) btf: Option<BorrowedFd<'a>>,
    /// Records and the size of one.
    pub(crate) func_info: (&'a [u8], usize),
    /// Records and the size of one.
    pub(crate) line_info: (&'a [u8], usize),
}

/// Log level: every step of the verifier.
pub(crate) const LOG_STEPS: u32 = 1 | LOG_STATS;
/// Log level: statistics only.
pub(crate) const LOG_STATS: u32 = 4;

/// Loads a program; returns the verifier's log as well.
pub(crate) fn prog_load(
    program: &ProgDef<'_>,
    log_level: u32,
    log_size: u32,
) -> (io::Result<OwnedFd>, String) {
    let mut log = vec![0_u8; log_size as usize];
    let size = |length: usize| u32::try_from(length).unwrap_or(u32::MAX);
    let records = |(bytes, size): (&[u8], usize)| bytes.len().checked_div(size).unwrap_or(0);
    let mut attr = zeroed();
    // SAFETY: the variant is plain data in an all-zero union.
    let load = unsafe { &mut attr.__bindgen_anon_3 };
    load.prog_type = program.kind;
    load.expected_attach_type = program.expected_attach_type;
    load.insns = program.instructions.as_ptr() as u64;
    load.insn_cnt = size(program.instructions.len());
    load.license = program.license.as_ptr() as u64;
    load.log_level = log_level;
    load.log_buf = log.as_mut_ptr() as u64;
    load.log_size = log_size;
    for (to, from) in load.prog_name.iter_mut().take(15).zip(program.name.bytes()) {
        *to = libc::c_char::try_from(from).unwrap_or(0);
    }
    if let Some(btf) = program.btf {
        load.prog_btf_fd = raw(btf);
        if !program.func_info.0.is_empty() {
            load.func_info = program.func_info.0.as_ptr() as u64;
            load.func_info_cnt = size(records(program.func_info));
            load.func_info_rec_size = size(program.func_info.1);
        }
        if !program.line_info.0.is_empty() {
            load.line_info = program.line_info.0.as_ptr() as u64;
            load.line_info_cnt = size(records(program.line_info));
            load.line_info_rec_size = size(program.line_info.1);
        }
    }
    // SAFETY: all pointers are to buffers of the stated lengths that outlive the call; the kernel writes only the log.
    let result = unsafe { bpf(bpf_cmd::BPF_PROG_LOAD, &mut attr).and_then(|ret| own(ret)) };
    let end = log.iter().position(|&byte| byte == 0).unwrap_or(log.len());
    log.truncate(end);
    (result, String::from_utf8_lossy(&log).into_owned())
}

/// Gives memory that was freed back to the system, where the allocator would keep it.
pub(crate) fn release_memory() {
    #[cfg(target_env = "gnu")]
    {
        // SAFETY: malloc_trim takes a number, touches only free memory and may be called at any time from any thread.
        let _released = unsafe { libc::malloc_trim(0) };
    }
}

/// `SO_NETNS_COOKIE` of a socket (linux/socket.h): the number of its network namespace.
pub(crate) fn netns_cookie(socket: BorrowedFd<'_>) -> io::Result<u64> {
    const SO_NETNS_COOKIE: libc::c_int = 71;
    let mut cookie = 0_u64;
    let mut length: libc::socklen_t = 8;
    // SAFETY: the descriptor is open, and the kernel writes at most `length` bytes, which are those of `cookie`.
    let result = unsafe {
        libc::getsockopt(
            socket.as_raw_fd(),
            libc::SOL_SOCKET,
            SO_NETNS_COOKIE,
            std::ptr::from_mut(&mut cookie).cast(),
            &raw mut length,
        )
    };
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(cookie) }
}

/// How many CPUs the kernel counts per-CPU values for.
pub(crate) fn possible_cpus() -> io::Result<usize> {
    // "0-1" or "0,2-5": the kernel lists possible CPUs in ascending order, and sizes per-CPU values by their number.
    let text = std::fs::read_to_string("/sys/devices/system/cpu/possible")?;
    let mut count = 0;
    for part in text.trim().split(',') {
        let (low, high) = part.split_once('-').unwrap_or((part, part));
        let low: usize = low.parse().map_err(io::Error::other)?;
        let high: usize = high.parse().map_err(io::Error::other)?;
        count += high.saturating_sub(low) + 1;
    }
    Ok(count)
}
