// SPDX-License-Identifier: GPL-2.0-only OR MIT
//! The few system calls no safe wrapper covers. The only file here with `unsafe`.

use std::io;
use std::os::fd::AsRawFd;

/// Binds a packet socket to one interface and to every protocol (packet(7)).
pub fn bind_packet_socket(socket: &impl AsRawFd, interface: u32) -> io::Result<()> {
    let address = libc::sockaddr_ll {
        sll_family: libc::AF_PACKET as u16,
        sll_protocol: (libc::ETH_P_ALL as u16).to_be(),
        sll_ifindex: interface as i32,
        sll_hatype: 0,
        sll_pkttype: 0,
        sll_halen: 0,
        sll_addr: [0; 8],
    };
    // SAFETY: `address` is a whole `sockaddr_ll`, alive for the call, and its own size is what is passed.
    let result = unsafe {
        libc::bind(
            socket.as_raw_fd(),
            std::ptr::from_ref(&address).cast(),
            std::mem::size_of_val(&address) as libc::socklen_t,
        )
    };
    if result == 0 {
        Ok(())
    } else {
        Err(io::Error::last_os_error())
    }
}

/// How many packets a packet socket dropped because its buffer was full (PACKET_STATISTICS).
pub fn packet_socket_drops(socket: &impl AsRawFd) -> io::Result<u32> {
    let mut statistics = libc::tpacket_stats {
        tp_packets: 0,
        tp_drops: 0,
    };
    let mut length = std::mem::size_of_val(&statistics) as libc::socklen_t;
    // SAFETY: `statistics` and `length` are alive for the call, and `length` is the size of `statistics`.
    let result = unsafe {
        libc::getsockopt(
            socket.as_raw_fd(),
            libc::SOL_PACKET,
            libc::PACKET_STATISTICS,
            std::ptr::from_mut(&mut statistics).cast(),
            &mut length,
        )
    };
    if result == 0 {
        Ok(statistics.tp_drops)
    } else {
        Err(io::Error::last_os_error())
    }
}

/// Sets an integer socket option.
pub fn set_option(socket: &impl AsRawFd, level: i32, option: i32, value: i32) -> io::Result<()> {
    set_option_octets(socket, level, option, &value.to_ne_bytes())
}

/// Sets a socket option that is a structure.
pub fn set_option_octets(
    socket: &impl AsRawFd,
    level: i32,
    option: i32,
    octets: &[u8],
) -> io::Result<()> {
    // SAFETY: `octets` is alive for the call and its own size is what is passed.
    let result = unsafe {
        libc::setsockopt(
            socket.as_raw_fd(),
            level,
            option,
            octets.as_ptr().cast(),
            octets.len() as libc::socklen_t,
        )
    };
    if result == 0 {
        Ok(())
    } else {
        Err(io::Error::last_os_error())
    }
}

/// Reads an integer socket option.
pub fn option(socket: &impl AsRawFd, level: i32, option: i32) -> io::Result<i32> {
    let mut value = 0i32;
    let mut length = std::mem::size_of_val(&value) as libc::socklen_t;
    // SAFETY: `value` and `length` are alive for the call, and `length` is the size of `value`.
    let result = unsafe {
        libc::getsockopt(
            socket.as_raw_fd(),
            level,
            option,
            std::ptr::from_mut(&mut value).cast(),
            &mut length,
        )
    };
    if result == 0 {
        Ok(value)
    } else {
        Err(io::Error::last_os_error())
    }
}

/// Reads a socket option that is a structure into `octets`; how many of them the kernel filled.
pub fn option_octets(
    socket: &impl AsRawFd,
    level: i32,
    option: i32,
    octets: &mut [u8],
) -> io::Result<usize> {
    let mut length = octets.len() as libc::socklen_t;
    // SAFETY: `octets` and `length` are alive for the call, and `length` is the size of `octets`.
    let result = unsafe {
        libc::getsockopt(
            socket.as_raw_fd(),
            level,
            option,
            octets.as_mut_ptr().cast(),
            &mut length,
        )
    };
    if result == 0 {
        Ok(length as usize)
    } else {
        Err(io::Error::last_os_error())
    }
}

/// Makes the calling thread, and no other, an ordinary user without capabilities (setresuid(2), on the bare call: the C
/// library's would change every thread of the process).
pub fn become_user_on_this_thread(user: u32) -> io::Result<()> {
    // SAFETY: setresuid takes three integers and touches no memory of ours.
    if unsafe { libc::syscall(libc::SYS_setresuid, user, user, user) } == 0 {
        Ok(())
    } else {
        Err(io::Error::last_os_error())
    }
}
