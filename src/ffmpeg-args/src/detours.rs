//! Filters that move a picture between memories and formats (contract 2.5): each vendor's detours.
//!
//! Invariants:
//! - They leave no trace in a plan, only in where the picture lies and in how many bits.
//! - What a mapping gives is named by the `format` behind it, or goes where it is taken unnamed.

use crate::Verdict;
use crate::chain::Chain;
use crate::filters::Filter;
use crate::memory::{Device, Memory};
use crate::numbers::whole;

impl Chain {
    /// `format`: converts in main memory, names what a mapping gave, or checks what is there.
    pub(crate) fn format(&mut self, filter: &Filter) -> Verdict<()> {
        let mut options = filter.options(&["pix_fmts"])?;
        let formats = options.take("pix_fmts").unwrap_or_default();
        options.finish()?;
        let refusal = || filter.refuse(&format!("{formats} of a picture in {}", self.memory));
        // 10.6 and 10.7: whatever the decoder gave, the upload behind it takes either.
        if formats == "nv12|vaapi" {
            return match self.memory {
                Memory::System => {
                    self.eight_bit = true;
                    Ok(())
                }
                Memory::On(Device::Vaapi) => Ok(()),
                _ => Err(refusal()),
            };
        }
        if let Some(device) = Device::of_format(formats) {
            // Vulkan's is also said where it is the case.
            let there = device == Device::Vulkan && self.memory == Memory::On(device);
            if !there && self.memory != Memory::Mapped(Some(device)) {
                return Err(refusal());
            }
            self.memory = Memory::On(device);
            return Ok(());
        }
        let eight_bit = match formats {
            "nv12" | "yuv420p" => true,
            // Converted to 8 bits later, or the encoder says no.
            "p010" | "p010le" if self.tone_map.is_none() => false,
            "yuv420p10le" if self.tone_map.is_none() && self.hdr.is_some() => false,
            _ => return Err(refusal()),
        };
        match self.memory {
            Memory::System | Memory::Mapped(None) => {
                if self.memory == Memory::System {
                    self.lent = None;
                }
                self.memory = Memory::System;
                self.eight_bit = eight_bit;
                Ok(())
            }
            _ => Err(refusal()),
        }
    }

    pub(crate) fn upload(&mut self, filter: &Filter) -> Verdict<()> {
        let mut options = filter.options(&[])?;
        options.read("extra_hw_frames", whole::<u32>)?;
        let derived = derived_device(filter, options.take("derive_device"))?;
        options.finish()?;
        let device = match filter.name.as_str() {
            "hwupload_vaapi" => Some(Device::Vaapi),
            "hwupload_cuda" => Some(Device::Cuda),
            _ => derived.or(self.encoder),
        };
        let device = device.ok_or_else(|| filter.refuse("for an encoder in main memory"))?;
        // What lies on the device already passes through.
        if self.memory != Memory::On(device) {
            self.demand(filter, Memory::System)?;
        }
        self.memory = Memory::On(device);
        Ok(())
    }

    pub(crate) fn download(&mut self, filter: &Filter) -> Verdict<()> {
        filter.options(&[])?.finish()?;
        match self.memory {
            Memory::On(
                Device::Vaapi | Device::Qsv | Device::Cuda | Device::Opencl | Device::Vulkan,
            ) => {
                self.memory = Memory::Mapped(None);
                Ok(())
            }
            _ => Err(filter.refuse(&format!("of a picture in {}", self.memory))),
        }
    }

    /// `hwmap`; `reverse=1` gives back what was mapped to OpenCL. A picture of VA-API's that was
    /// mapped into main memory for subtitles goes back without a word.
    pub(crate) fn map(&mut self, filter: &Filter) -> Verdict<()> {
        let mut options = filter.options(&[])?;
        options.read("extra_hw_frames", whole::<u32>)?;
        let mode = options.read("mode", |mode| match mode {
            "read" => Some(false),
            "write" => Some(true),
            _ => None,
        })?;
        let reverse = options.read("reverse", |text| (text == "1").then_some(()))?.is_some();
        let derived = derived_device(filter, options.take("derive_device"))?;
        options.finish()?;
        if self.memory == Memory::System
            && let Some(device) = self.lent.take()
            && self.subtitles.is_some()
            && (derived, mode, reverse) == (None, None, false)
        {
            self.memory = Memory::Mapped(Some(device));
            return Ok(());
        }
        let ways: &[Option<Device>] = match self.memory {
            Memory::On(Device::Vaapi) => &[
                None,
                Some(Device::Qsv),
                Some(Device::Opencl),
                Some(Device::Drm),
                Some(Device::Vulkan),
            ],
            Memory::On(Device::Qsv) => &[Some(Device::Vaapi), Some(Device::Opencl)],
            Memory::On(Device::Opencl) => &[None, Some(Device::Vaapi), Some(Device::Qsv)],
            Memory::On(Device::Drm) => &[Some(Device::Vulkan)],
            Memory::On(Device::Vulkan) => &[Some(Device::Vaapi)],
            _ => &[],
        };
        let back = self.memory == Memory::On(Device::Opencl) && derived.is_some();
        let agrees = reverse == back && mode.is_none_or(|write| write == reverse);
        if !ways.contains(&derived) || !agrees {
            return Err(filter.refuse(&format!("this way of a picture in {}", self.memory)));
        }
        let vaapi = self.memory == Memory::On(Device::Vaapi);
        self.lent = (vaapi && derived.is_none() && mode.is_none()).then_some(Device::Vaapi);
        // What maps tones on OpenCL takes it without a `format` in between.
        self.memory = match derived {
            Some(Device::Opencl) => Memory::On(Device::Opencl),
            derived => Memory::Mapped(derived),
        };
        Ok(())
    }
}

/// The device behind `derive_device`.
fn derived_device(filter: &Filter, name: Option<&str>) -> Verdict<Option<Device>> {
    name.map(|name| {
        Device::named(name).ok_or_else(|| filter.refuse(&format!("derive_device={name}")))
    })
    .transpose()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::chain::reduce;
    use crate::filters::parse_chain;

    fn run(text: &str, start: Memory, encoder: Option<Device>) -> Verdict<Chain> {
        reduce(&parse_chain(text)?, start, encoder)
    }

    const VAAPI: Memory = Memory::On(Device::Vaapi);
    const QSV: Memory = Memory::On(Device::Qsv);
    const CUDA: Memory = Memory::On(Device::Cuda);

    #[test]
    fn detours_vanish() {
        use Memory::System;
        let (va, qsv, cuda) = (Some(Device::Vaapi), Some(Device::Qsv), Some(Device::Cuda));
        for (text, start, encoder, end) in [
            (
                "scale_vaapi=format=nv12:extra_hw_frames=24,hwmap=derive_device=qsv,format=qsv",
                VAAPI,
                qsv,
                QSV,
            ),
            ("scale_vaapi=format=nv12,hwmap=mode=read,format=nv12", VAAPI, None, System),
            ("scale_vaapi=format=nv12,hwdownload,format=nv12", VAAPI, None, System),
            ("hwdownload,format=p010le", VAAPI, None, System),
            ("format=nv12,hwupload_vaapi", System, va, VAAPI),
            ("format=nv12,hwupload=derive_device=vaapi", System, va, VAAPI),
            ("format=nv12|vaapi,hwupload,scale_vaapi=format=nv12", System, va, VAAPI),
            ("format=nv12|vaapi,hwupload,scale_vaapi=format=nv12", VAAPI, va, VAAPI),
            ("scale_cuda=format=yuv420p,hwdownload,format=yuv420p", CUDA, None, System),
            ("vpp_qsv=w=1280:h=720:format=nv12", QSV, qsv, QSV),
            ("hwupload=extra_hw_frames=64", System, cuda, CUDA),
        ] {
            match run(text, start, encoder) {
                Ok(chain) => assert_eq!(chain.memory, end, "{text}"),
                Err(refusal) => panic!("{text}: {refusal}"),
            }
        }
    }
}
