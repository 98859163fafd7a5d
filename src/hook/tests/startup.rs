//! Jellyfin's question for the VA-API driver.

mod common;

use common::{House, words};
use session::{GatewayToHook, HookToGateway, PROTOCOL};

const QUESTION: &[&str] =
    &["-v", "verbose", "-hide_banner", "-init_hw_device", "vaapi=va:/dev/dri/renderD128"];

/// Jellyfin takes the first of these that stands on stderr (contract 1.3).
const KNOWN: [&str; 3] = ["Mesa Gallium driver", "Intel iHD driver", "Intel i965 driver"];

#[test]
fn the_gateway_s_driver_is_named_as_ffmpeg_would() {
    for known in KNOWN {
        let house = House::new();
        let gateway = house.gateway();
        let hook = house.start(&words(QUESTION));
        let mut connection = gateway.connection();
        assert_eq!(connection.message(), HookToGateway::Driver { protocol: PROTOCOL });
        let driver = Some(format!("{known} for Some(R) Chip - 23.1.1 ()"));
        connection.say(&GatewayToHook::Driver { driver });
        let left = hook.left();
        assert_eq!((left.status.code(), left.stdout.as_str()), (Some(1), ""));
        let found: Vec<_> = KNOWN.into_iter().filter(|one| left.stderr.contains(one)).collect();
        assert_eq!(found, [known], "{}", left.stderr);
        assert_eq!(house.recorded_arguments(), None);
    }
}

#[test]
fn without_a_gpu_in_the_gateway_ffmpeg_looks_for_one() {
    let declined = GatewayToHook::Declined { reason: "you may not ask".into() };
    for answer in [Some(GatewayToHook::Driver { driver: None }), Some(declined), None] {
        let house = House::new();
        let gateway = house.gateway();
        let hook = house.start(&words(QUESTION));
        let mut connection = gateway.connection();
        connection.message();
        if let Some(answer) = answer {
            connection.say(&answer);
        }
        drop(connection);
        let left = hook.left_after_input();
        assert_eq!(left.status.code(), Some(42));
        assert!(!left.stderr.contains("rendergate:"), "{}", left.stderr);
        assert_eq!(house.recorded_arguments(), Some(words(QUESTION)));
    }
}

#[test]
fn without_a_gateway_ffmpeg_is_asked() {
    let house = House::new();
    let left = house.start(&words(QUESTION)).left_after_input();
    assert_eq!(left.status.code(), Some(42));
    assert_eq!(house.recorded_arguments(), Some(words(QUESTION)));
}

#[test]
fn other_devices_are_none_of_the_gateway_s_business() {
    let house = House::new();
    let gateway = house.gateway();
    let vulkan = words(&[
        "-v",
        "verbose",
        "-hide_banner",
        "-init_hw_device",
        "drm=dr:/dev/dri/renderD128",
        "-init_hw_device",
        "vulkan=vk@dr",
    ]);
    let left = house.start(&vulkan).left_after_input();
    assert_eq!(house.recorded_arguments(), Some(vulkan));
    assert_eq!(left.status.code(), Some(42));
    assert!(gateway.is_quiet());
}
