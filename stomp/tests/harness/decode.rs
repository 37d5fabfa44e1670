//! Octets, in chunks, against the parser in `../reference`; frames whole and in parts.

use stompwire::proto::{Lenience, Limits, Version};

use reference::{
    Rules,
    feed::{frame_by_frame, part_by_part},
};

#[path = "../reference/mod.rs"]
mod reference;

const SMALL: Limits =
    Limits { max_line: 20, max_headers: 3, max_head: 50, max_body: 20, max_long_body: 45, max_eols: 3 };

/// An octet for the rules, one that seeds the chunking, then what the peer sends. Of the rules' octet bits 0 and 1 are
/// the version (0: before the handshake), bit 2 unescapes CONNECT, bit 3 makes the limits small; bits 4 to 6, of which
/// those of the digits stand for "off", are the three switches of [`Lenience`].
pub(crate) fn run(data: &[u8]) {
    let [mode, seed, octets @ ..] = data else { return };
    let version =
        [None, Some(Version::V1_0), Some(Version::V1_1), Some(Version::V1_2)][usize::from(mode & 3)];
    let limits = if mode & 8 == 0 { Limits { max_body: 200, ..Limits::default() } } else { SMALL };
    let mut lenience = Lenience::STRICT;
    lenience.skip_bad_headers = mode & 0x10 == 0;
    lenience.trim_headers = mode & 0x20 == 0;
    lenience.ignore_bodies = mode & 0x40 != 0;
    let rules = Rules { version, limits, unescape_connect: mode & 4 != 0, lenience };

    let expected = reference::parse(octets, &rules, false);
    assert_eq!(frame_by_frame(octets, &rules, || usize::MAX), expected, "whole");
    assert_eq!(frame_by_frame(octets, &rules, sizes(*seed)), expected, "in chunks");

    let expected = reference::parse(octets, &rules, true);
    let (result, open) = part_by_part(octets, &rules, || usize::MAX);
    assert_eq!(result, expected, "in parts");
    assert_eq!(part_by_part(octets, &rules, sizes(*seed)), (expected, open), "in parts and chunks");
}

/// 1 to 17 octets.
fn sizes(seed: u8) -> impl FnMut() -> usize {
    let mut state = u32::from(seed);
    move || {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        1 + (state >> 24) as usize % 17
    }
}
