//! A chain of filters in an else plain command, and the same text as a graph: the whole of it, its
//! plane, the picture's branch, and what lays the one over the other.
#![no_main]

mod command;

use libfuzzer_sys::fuzz_target;

const PLANE: &str =
    "[0:1]scale,scale=1280:720:fast_bilinear,format=bgra,hwupload=derive_device=vaapi[sub]";
const PICTURE: &str = "[0:0]scale_vaapi=format=nv12[main]";
const OVERLAY: &str = "[main][sub]overlay_vaapi=eof_action=pass:repeatlast=0";

fuzz_target!(|chain: &str| {
    let plain = command::command(chain, "expr:gte(t,n_forced*3)");
    command::check(&plain);
    let at = plain.iter().position(|word| word == "-vf").expect("it has filters");
    for graph in [
        chain.to_owned(),
        format!("[0:1]{chain}[sub];{PICTURE};{OVERLAY}"),
        format!("{chain}[sub];{PICTURE};{OVERLAY}"),
        format!("{PLANE};[0:0]{chain}[main];{OVERLAY}"),
        format!("{PLANE};{PICTURE};[main][sub]{chain}"),
    ] {
        let mut drawn = plain.clone();
        drawn[at] = "-filter_complex".into();
        drawn[at + 1] = graph.into();
        command::check(&drawn);
    }
});
