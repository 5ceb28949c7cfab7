//! Same-run comparisons of Portolan with named baselines.
//!
//! Machines drift by a third within an hour, so only the ratios of runs that alternate count. `perf/run` builds everything with
//! the release profile and compares one TCP stream from guest to guest through the kernel's bridge, through the bare forwarder
//! (`forwarder`), and through Portolan's dataplane (`pair`); `perf/results` tells what was tried.

pub mod packet_socket;
pub mod plane;

use std::net::{IpAddr, Ipv4Addr};

use portolan_switch::ids::MacAddr;

/// The hardware address of guest `i`, 0 or 1.
pub fn guest_mac(i: u8) -> MacAddr {
    MacAddr([0x02, 0x50, 0x4f, 0x52, 0x54, i])
}

/// The address of guest `i`, 0 or 1, in 10.99.0.0/24.
pub fn guest_address(i: u8) -> IpAddr {
    Ipv4Addr::new(10, 99, 0, 10 + i).into()
}

/// The middle one of an odd number of figures, the higher middle one of an even number; 0 of none.
pub fn median(figures: &[f64]) -> f64 {
    let mut sorted = figures.to_vec();
    sorted.sort_by(f64::total_cmp);
    sorted.get(sorted.len() / 2).copied().unwrap_or(0.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn median_is_the_middle_of_the_sorted() {
        assert!((median(&[3.0, 1.0, 2.0]) - 2.0).abs() < f64::EPSILON);
        assert!((median(&[]) - 0.0).abs() < f64::EPSILON);
    }
}
