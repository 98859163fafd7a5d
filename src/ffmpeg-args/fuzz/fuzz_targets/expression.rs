//! An `expr:` of forced keyframes, and the same text as the sizes of a scaler.
#![no_main]

mod command;

use libfuzzer_sys::fuzz_target;

fuzz_target!(|text: &str| {
    command::check(&command::command("scale_vaapi=format=nv12", text));
    command::check(&command::command("scale_vaapi=format=nv12", &format!("expr:{text}")));
    let (width, height) = text.split_once(':').unwrap_or((text, text));
    let escaped = |side: &str| side.replace(',', "\\,");
    let chain = format!("hwdownload,format=nv12,scale={}:{}", escaped(width), escaped(height));
    command::check(&command::command(&format!("{chain},hwupload_vaapi"), "expr:gte(t,n_forced*3)"));
});
