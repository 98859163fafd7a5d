//! Intel's UHD 630 as far as a driver can tell before it waits for a result.
//!
//! A node of kernel driver i915 whose answers let Intel's own VA-API drivers load, list what the
//! chip can do, and take submissions. Nothing is executed: a coded buffer stays as empty as it was.

use crate::config::Face;
use crate::device::{Answer, Device, Request};
use crate::i915_uapi::{self as uapi, number, param, query};

/// GT2: one slice of three subslices with eight execution units each.
const SUBSLICES: u16 = 3;
const EUS_PER_SUBSLICE: u16 = 8;
/// Class and instance: render, copy, video, video-enhance. Some GT2 chips have a second video
/// engine; a driver that finds two may use both.
const ENGINES: [(u16, u16); 5] = [(0, 0), (1, 0), (2, 0), (2, 1), (3, 0)];
/// A video engine decodes HEVC and has the scaler; the one for enhancement has the scaler.
const CAPABILITIES: [u64; 5] = [0, 0, 0b11, 0b11, 0b10];
/// Size of a process's address space on the GPU.
const ADDRESS_SPACE: u64 = 1 << 48;
/// Graphics memory is system memory; so much of it.
const MEMORY: u64 = 4 << 30;

/// `None` if nothing is known of the request.
pub(crate) fn ioctl(device: &Device, descriptor: i32, request: Request) -> Option<Answer> {
    Some(match request.number {
        number::GETPARAM => request.with(get_param),
        number::QUERY => request.with(answer_query),
        // The newer call begins with the same fields; where the buffer is to lie makes no difference.
        number::GEM_CREATE | number::GEM_CREATE_EXT => request.with(|create: &mut uapi::Create| {
            let created = device.buffers().create(descriptor, create.size)?;
            (create.handle, create.size) = created;
            Ok(())
        }),
        // The caller's memory stays the caller's: nothing will look into the buffer.
        number::GEM_USERPTR => request.with(|user: &mut uapi::Userptr| {
            user.handle = device.buffers().create(descriptor, user.size)?.0;
            Ok(())
        }),
        number::GEM_MMAP => request.with(|map: &mut uapi::Mmap| mmap(device, descriptor, map)),
        number::GEM_MMAP_OFFSET => request.with(|map: &mut uapi::MmapOffset| {
            map.offset = device.buffers().get(map.handle)?.offset;
            Ok(())
        }),
        number::GEM_PREAD => request.with(|transfer: &mut uapi::Transfer| {
            transfer_bytes(device, descriptor, transfer, libc::SYS_pread64)
        }),
        number::GEM_PWRITE => request.with(|transfer: &mut uapi::Transfer| {
            transfer_bytes(device, descriptor, transfer, libc::SYS_pwrite64)
        }),
        number::GEM_SET_TILING => request.with(|tiling: &mut uapi::SetTiling| {
            let mut buffers = device.buffers();
            let buffer = buffers.get(tiling.handle)?;
            (buffer.tiling, buffer.stride) = (tiling.mode, tiling.stride);
            tiling.swizzle = 0;
            Ok(())
        }),
        number::GEM_GET_TILING => request.with(|tiling: &mut uapi::GetTiling| {
            tiling.mode = device.buffers().get(tiling.handle)?.tiling;
            (tiling.swizzle, tiling.physical_swizzle) = (0, 0);
            Ok(())
        }),
        number::GEM_GET_APERTURE => request.with(|aperture: &mut uapi::Aperture| {
            (aperture.size, aperture.available) = (MEMORY, MEMORY);
            Ok(())
        }),
        // All work is done at once, as there is none.
        number::GEM_BUSY => request.with(|busy: &mut uapi::Busy| {
            busy.busy = 0;
            device.buffers().get(busy.handle).map(drop)
        }),
        number::GEM_WAIT => {
            request.with(|wait: &mut uapi::Wait| device.buffers().get(wait.handle).map(drop))
        }
        number::GEM_EXECBUFFER2 => request.with(|execute: &mut uapi::Execute| {
            if execute.flags & uapi::EXEC_FENCE_OUT != 0 {
                // The high half is the fence that the caller gets.
                let fence = signalled_fence()?;
                execute.fence = execute.fence & 0xffff_ffff | u64::from(fence) << 32;
            }
            Ok(())
        }),
        number::GEM_MADVISE => request.with(|advise: &mut uapi::Advise| {
            advise.retained = 1;
            Ok(())
        }),
        number::GEM_GET_CACHING => request.with(|caching: &mut uapi::Caching| {
            caching.caching = 1;
            Ok(())
        }),
        number::GEM_SET_CACHING
        | number::GEM_THROTTLE
        | number::GEM_SET_DOMAIN
        | number::GEM_SW_FINISH
        | number::CONTEXT_DESTROY
        | number::CONTEXT_SETPARAM
        | number::VM_DESTROY => Ok(()),
        number::CONTEXT_CREATE => request.with(|create: &mut uapi::ContextCreate| {
            create.context = device.buffers().next_context();
            Ok(())
        }),
        number::VM_CREATE => request.with(|vm: &mut uapi::Vm| {
            vm.id = device.buffers().next_context();
            Ok(())
        }),
        number::CONTEXT_GETPARAM => {
            request.with(|get: &mut uapi::ContextParam| context_param(device, get))
        }
        number::REG_READ => request.with(|read: &mut uapi::RegRead| {
            read.value = 0;
            Ok(())
        }),
        number::GET_RESET_STATS => request.with(|stats: &mut uapi::ResetStats| {
            (stats.resets, stats.active, stats.pending) = (0, 0, 0);
            Ok(())
        }),
        _ => return None,
    })
}

fn get_param(get: &mut uapi::GetParam) -> Answer {
    let value = match get.param {
        param::CHIPSET_ID => i32::from(Face::I915.pci().1),
        param::REVISION | param::HAS_POOLED_EU | param::MIN_EU_IN_POOL => 0,
        param::NUM_FENCES_AVAIL => 32,
        param::HAS_ALIASING_PPGTT => 3,
        param::CMD_PARSER_VERSION => 10,
        param::MMAP_VERSION => 1,
        // Below 4: buffers are mapped by GEM_MMAP.
        param::MMAP_GTT_VERSION => 3,
        param::SUBSLICE_TOTAL => i32::from(SUBSLICES),
        param::EU_TOTAL => i32::from(SUBSLICES * EUS_PER_SUBSLICE),
        param::HAS_SCHEDULER => 0b111,
        param::SLICE_MASK => 1,
        param::SUBSLICE_MASK => (1 << SUBSLICES) - 1,
        param::CS_TIMESTAMP_FREQUENCY => 12_000_000,
        param::PERF_REVISION => 0,
        // Everything else up to here asks whether something is there.
        1..=param::HAS_USERPTR_PROBE => 1,
        _ => return Err(libc::EINVAL),
    };
    if get.value.is_null() {
        return Err(libc::EFAULT);
    }
    // SAFETY: the caller says that the number may be written there.
    unsafe { get.value.write_unaligned(value) };
    Ok(())
}

fn answer_query(ask: &mut uapi::Query) -> Answer {
    for index in 0..ask.count as usize {
        // SAFETY: the caller says that `count` items lie there.
        let item = unsafe { &mut *(ask.items as *mut uapi::QueryItem).add(index) };
        let Some(answer) = query_data(item.id) else {
            item.length = -libc::EINVAL;
            continue;
        };
        // First the caller asks how much room it has to make, then it has made it.
        let room = usize::try_from(item.length).unwrap_or(0);
        if room >= answer.len() {
            // SAFETY: the caller says that `length` bytes may be written there.
            unsafe {
                std::ptr::copy_nonoverlapping(answer.as_ptr(), item.data as *mut u8, answer.len());
            }
        } else if room > 0 {
            item.length = -libc::EINVAL;
            continue;
        }
        item.length = i32::try_from(answer.len()).map_err(|_| libc::E2BIG)?;
    }
    Ok(())
}

fn query_data(id: u64) -> Option<Vec<u8>> {
    let mut data = Vec::new();
    match id {
        query::TOPOLOGY_INFO => {
            // Flags, greatest numbers, then offset and stride of subslice and unit masks.
            for field in [0, 1, SUBSLICES, EUS_PER_SUBSLICE, 1, 1, 2, 1] {
                data.extend_from_slice(&field.to_ne_bytes());
            }
            data.extend_from_slice(&[1, (1 << SUBSLICES) - 1]);
            data.extend_from_slice(&[0xff; SUBSLICES as usize]);
        }
        query::ENGINE_INFO => {
            data.extend_from_slice(&(ENGINES.len() as u32).to_ne_bytes());
            data.extend_from_slice(&[0; 12]);
            for ((class, instance), capabilities) in ENGINES.into_iter().zip(CAPABILITIES) {
                data.extend_from_slice(&class.to_ne_bytes());
                data.extend_from_slice(&instance.to_ne_bytes());
                // Reserved, then flags: the logical instance is valid.
                data.extend_from_slice(&[0; 4]);
                data.extend_from_slice(&1_u64.to_ne_bytes());
                data.extend_from_slice(&capabilities.to_ne_bytes());
                data.extend_from_slice(&instance.to_ne_bytes());
                data.extend_from_slice(&[0; 30]);
            }
        }
        query::MEMORY_REGIONS => {
            data.extend_from_slice(&1_u32.to_ne_bytes());
            // Reserved; class 0, instance 0 is system memory.
            data.extend_from_slice(&[0; 12 + 4 + 4]);
            data.extend_from_slice(&MEMORY.to_ne_bytes());
            data.extend_from_slice(&MEMORY.to_ne_bytes());
            data.extend_from_slice(&[0; 64]);
        }
        _ => return None,
    }
    Some(data)
}

fn mmap(device: &Device, descriptor: i32, map: &mut uapi::Mmap) -> Answer {
    let buffer = *device.buffers().get(map.handle)?;
    let inside = map.offset.checked_add(map.size).is_some_and(|end| end <= buffer.size);
    let (Ok(offset), Ok(size), true) =
        (libc::off_t::try_from(buffer.offset + map.offset), usize::try_from(map.size), inside)
    else {
        return Err(libc::EINVAL);
    };
    // SAFETY: a new mapping at a place of the kernel's choice.
    let address = unsafe {
        libc::mmap(
            std::ptr::null_mut(),
            size,
            libc::PROT_READ | libc::PROT_WRITE,
            libc::MAP_SHARED,
            descriptor,
            offset,
        )
    };
    if address == libc::MAP_FAILED {
        return Err(libc::ENOMEM);
    }
    map.address = address as u64;
    Ok(())
}

fn transfer_bytes(
    device: &Device,
    descriptor: i32,
    transfer: &uapi::Transfer,
    call: libc::c_long,
) -> Answer {
    let buffer = *device.buffers().get(transfer.handle)?;
    if transfer.offset.checked_add(transfer.size).is_none_or(|end| end > buffer.size) {
        return Err(libc::EINVAL);
    }
    let offset = buffer.offset + transfer.offset;
    // SAFETY: the caller says that `size` bytes lie at `data`, and the kernel checks it.
    let moved = unsafe { libc::syscall(call, descriptor, transfer.data, transfer.size, offset) };
    if u64::try_from(moved) == Ok(transfer.size) { Ok(()) } else { Err(libc::EFAULT) }
}

fn context_param(device: &Device, get: &mut uapi::ContextParam) -> Answer {
    match get.param {
        uapi::CONTEXT_GTT_SIZE => get.value = ADDRESS_SPACE,
        uapi::CONTEXT_VM => get.value = u64::from(device.buffers().next_context()),
        uapi::CONTEXT_SSEU => {
            if get.value == 0 || (get.size as usize) < size_of::<uapi::Sseu>() {
                return Err(libc::EINVAL);
            }
            // SAFETY: the caller says that a structure of `size` bytes lies there.
            let sseu = unsafe { &mut *(get.value as *mut uapi::Sseu) };
            (sseu.slices, sseu.subslices) = (1, (1 << SUBSLICES) - 1);
            (sseu.least_eus, sseu.most_eus) = (EUS_PER_SUBSLICE, EUS_PER_SUBSLICE);
        }
        _ => get.value = 0,
    }
    Ok(())
}

/// A descriptor that polls as readable, as a fence does that has been passed.
fn signalled_fence() -> Result<u32, i32> {
    // SAFETY: makes a descriptor, takes no pointer.
    let fence = unsafe { libc::eventfd(1, libc::EFD_CLOEXEC) };
    u32::try_from(fence).map_err(|_| libc::EMFILE)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn answers_are_as_long_as_the_kernel_s() {
        assert_eq!(query_data(query::TOPOLOGY_INFO).unwrap().len(), 16 + 1 + 1 + 3);
        assert_eq!(query_data(query::ENGINE_INFO).unwrap().len(), 16 + 5 * 56);
        assert_eq!(query_data(query::MEMORY_REGIONS).unwrap().len(), 16 + 88);
        assert_eq!(query_data(9), None);
    }

    #[test]
    fn queries_are_answered_in_two_steps() {
        let mut item = uapi::QueryItem { id: query::TOPOLOGY_INFO, length: 0, flags: 0, data: 0 };
        let mut ask = uapi::Query { count: 1, flags: 0, items: (&raw mut item) as u64 };
        answer_query(&mut ask).unwrap();
        let mut room = vec![0_u8; usize::try_from(item.length).unwrap()];
        item = uapi::QueryItem { data: room.as_mut_ptr() as u64, ..item };
        ask.items = (&raw mut item) as u64;
        answer_query(&mut ask).unwrap();
        assert_eq!(room[16..], [1, 0b111, 0xff, 0xff, 0xff]);
    }

    #[test]
    fn the_chip_is_a_uhd_630() {
        let mut value = 0;
        get_param(&mut uapi::GetParam { param: param::CHIPSET_ID, value: &raw mut value }).unwrap();
        assert_eq!(value, 0x3e92);
        let unknown = &mut uapi::GetParam { param: 999, value: &raw mut value };
        assert_eq!(get_param(unknown), Err(libc::EINVAL));
    }
}
