//! The sandbox that this process puts itself into ([`sandbox`]), as the gateway's settings want it.
//!
//! They come as variables, since a worker has no arguments: `RENDERGATE_SANDBOX` is `best-effort`,
//! `required` or `off`; `RENDERGATE_SANDBOX_READ` and `RENDERGATE_SANDBOX_WRITE` are lists of further
//! folders, divided by colons.

use sandbox::{Extra, Held, Prepared, Work};
use session::{Ending, Fault, Sandbox};

use crate::writer::failed;

/// A sandbox that waits for its stream.
#[derive(Debug)]
pub struct Confinement {
    required: bool,
    prepared: Option<Prepared>,
}

impl Confinement {
    /// Makes what doesn't depend on the stream. `variable` gives the environment; what it says that
    /// can't be understood is taken for `required`, which is on the safe side.
    pub fn prepare(variable: impl Fn(&str) -> Option<String>) -> Self {
        let wanted = variable("RENDERGATE_SANDBOX").unwrap_or_default();
        let list = |name| {
            let list = variable(name).unwrap_or_default();
            list.split(':').filter(|path| !path.is_empty()).map(Into::into).collect()
        };
        let extra = Extra {
            read: list("RENDERGATE_SANDBOX_READ"),
            write: list("RENDERGATE_SANDBOX_WRITE"),
        };
        Self {
            required: !matches!(wanted.as_str(), "" | "best-effort" | "off"),
            prepared: (wanted != "off").then(|| Prepared::new(&extra, &variable)),
        }
    }

    /// Enters for good, and says to `tell` what holds.
    ///
    /// # Errors
    /// If something is missing of what is required.
    pub fn enter(self, work: Work<'_>, tell: impl FnOnce(Sandbox)) -> Result<Option<Held>, Ending> {
        let Some(prepared) = self.prepared else { return Ok(None) };
        let held = prepared.enter(work);
        let lack = |name, reason: &String| format!("no {name}: {reason}");
        let missing: Vec<String> = [
            held.landlock.as_ref().err().map(|reason| lack("Landlock", reason)),
            held.seccomp.as_ref().err().map(|reason| lack("seccomp", reason)),
        ]
        .into_iter()
        .flatten()
        .collect();
        let missing = (!missing.is_empty()).then(|| missing.join("; "));
        tell(Sandbox {
            landlock: held.landlock.as_ref().ok().copied(),
            seccomp: held.seccomp.is_ok(),
            missing: missing.clone(),
        });
        match missing {
            Some(missing) if self.required => {
                let reason = format!("worker.sandbox is required, and there is {missing}");
                Err(failed(reason, Fault::Unsupported))
            }
            _ => Ok(Some(held)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn settings_are_read() {
        let check = |value: Option<&str>, expect: (bool, bool)| {
            let confinement = Confinement::prepare(|name| {
                value.filter(|_| name == "RENDERGATE_SANDBOX").map(str::to_owned)
            });
            assert_eq!((confinement.prepared.is_some(), confinement.required), expect, "{value:?}");
        };
        check(None, (true, false));
        check(Some("best-effort"), (true, false));
        check(Some("required"), (true, true));
        check(Some("off"), (false, false));
        check(Some("Off"), (true, true));
    }
}
