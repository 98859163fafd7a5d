//! The size of the output picture. Pure.

/// What a plan says about the size; 0 where it says nothing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Target {
    /// Exact width in pixels.
    pub width: u32,
    /// Exact height in pixels.
    pub height: u32,
    /// Width of the box to fit into.
    pub max_width: u32,
    /// Height of the box to fit into.
    pub max_height: u32,
}

/// Output size for a source of `width` × `height` pixels.
///
/// For a box it is the value of Jellyfin's expression (contract 2.5)
/// `trunc(min(max(iw\,ih*a)\,min(MW\,MH*a))/2)*2:trunc(min(max(iw/a\,ih)\,min(MW/a\,MH))/2)*2`
/// with `a` = iw/ih, in ffmpeg's double arithmetic. Sizes are even.
pub fn target_size(target: Target, width: u32, height: u32) -> (u32, u32) {
    if target.width > 0 && target.height > 0 {
        return (target.width, target.height);
    }
    if target.max_width == 0 || target.max_height == 0 {
        return (width & !1, height & !1);
    }
    let (w, h) = (f64::from(width), f64::from(height));
    let (max_w, max_h) = (f64::from(target.max_width), f64::from(target.max_height));
    let a = w / h;
    let fitted_width = w.max(h * a).min(max_w.min(max_h * a));
    let fitted_height = (w / a).max(h).min((max_w / a).min(max_h));
    let even = |value: f64| ((value / 2.0).trunc() * 2.0).max(2.0) as u32;
    (even(fitted_width), even(fitted_height))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fit(width: u32, height: u32, max_width: u32, max_height: u32) -> (u32, u32) {
        target_size(Target { max_width, max_height, ..Target::default() }, width, height)
    }

    #[test]
    fn sizes() {
        assert_eq!(fit(1920, 1080, 1280, 720), (1280, 720));
        assert_eq!(fit(1920, 1080, 2560, 1440), (1920, 1080));
        assert_eq!(fit(1920, 800, 1280, 720), (1280, 532));
        assert_eq!(fit(720, 576, 1920, 1080), (720, 576));
        assert_eq!(fit(853, 480, 1920, 1080), (852, 480));
        let exact = Target { width: 426, height: 238, ..Target::default() };
        assert_eq!(target_size(exact, 1920, 1080), (426, 238));
        assert_eq!(target_size(Target::default(), 641, 481), (640, 480));
    }
}
