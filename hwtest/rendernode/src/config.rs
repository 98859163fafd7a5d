//! Which nodes are shown, and what is wrong with them.

/// The first render node's minor number, by the kernel's convention.
pub(crate) const FIRST_MINOR: u32 = 128;
/// Minors 128 to 191 are render nodes.
const MOST_NODES: usize = 64;

/// What a node pretends to be.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum Face {
    /// No hardware: a driver that only needs a node to be there.
    Softva,
    /// Intel UHD 630 (Coffee Lake, 8086:3e92).
    I915,
}

impl Face {
    /// The kernel driver's name.
    pub(crate) fn driver(self) -> &'static str {
        match self {
            Self::Softva => "softva",
            Self::I915 => "i915",
        }
    }

    /// PCI vendor and device. `fffe` belongs to nobody.
    pub(crate) fn pci(self) -> (u16, u16) {
        match self {
            Self::Softva => (0xfffe, 0x0001),
            Self::I915 => (0x8086, 0x3e92),
        }
    }
}

/// What goes wrong on a node.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum Fault {
    /// Opening gives EACCES.
    NoPermission,
    /// After so many ioctls of an open file, ENODEV.
    Gone(u64),
}

/// One node.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) struct Node {
    pub(crate) minor: u32,
    pub(crate) face: Face,
    pub(crate) fault: Option<Fault>,
}

/// The nodes that the variables ask for.
///
/// # Errors
/// Which variable is wrong and what it may be.
pub(crate) fn nodes(variable: impl Fn(&str) -> Option<String>) -> Result<Vec<Node>, String> {
    let get = |name: &str| variable(name).filter(|value| !value.is_empty());
    let faces = match get("RENDERNODE_FACES") {
        Some(list) => {
            list.split(',').map(|name| face("RENDERNODE_FACES", name)).collect::<Result<_, _>>()?
        }
        None => {
            let name = get("RENDERNODE_FACE");
            let face = name.map_or(Ok(Face::Softva), |name| face("RENDERNODE_FACE", &name))?;
            let count = get("RENDERNODE_COUNT").map_or(Ok(1), |text| count(&text))?;
            vec![face; count]
        }
    };
    let mut nodes: Vec<Node> =
        (FIRST_MINOR..).zip(faces).map(|(minor, face)| Node { minor, face, fault: None }).collect();
    for text in get("RENDERNODE_FAULT").iter().flat_map(|list| list.split(',')) {
        let (fault, minor) = fault(text)?;
        for node in nodes.iter_mut().filter(|node| minor.is_none_or(|m| m == node.minor)) {
            node.fault = Some(fault);
        }
    }
    Ok(nodes)
}

fn face(variable: &str, name: &str) -> Result<Face, String> {
    match name.trim() {
        "softva" => Ok(Face::Softva),
        "i915" => Ok(Face::I915),
        other => Err(format!("{variable} has '{other}', expected softva or i915")),
    }
}

fn count(text: &str) -> Result<usize, String> {
    text.parse().ok().filter(|count| *count <= MOST_NODES).ok_or_else(|| {
        format!("RENDERNODE_COUNT is '{text}', expected a number from 0 to {MOST_NODES}")
    })
}

fn fault(text: &str) -> Result<(Fault, Option<u32>), String> {
    let wrong = || {
        format!(
            "RENDERNODE_FAULT has '{text}', expected no-permission, gone or gone:N, \
             and @129 after it for one node only"
        )
    };
    let (kind, minor) = match text.trim().split_once('@') {
        Some((kind, minor)) => (kind, Some(minor.parse().map_err(|_| wrong())?)),
        None => (text.trim(), None),
    };
    let fault = match kind.split_once(':') {
        None if kind == "no-permission" => Fault::NoPermission,
        None if kind == "gone" => Fault::Gone(0),
        Some(("gone", after)) => Fault::Gone(after.parse().map_err(|_| wrong())?),
        _ => return Err(wrong()),
    };
    Ok((fault, minor))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(variables: &[(&str, &str)]) -> Result<Vec<Node>, String> {
        nodes(|name| variables.iter().find(|(key, _)| *key == name).map(|(_, v)| (*v).into()))
    }

    fn node(minor: u32, face: Face, fault: Option<Fault>) -> Node {
        Node { minor, face, fault }
    }

    #[test]
    fn nothing_set_is_one_software_node() {
        assert_eq!(parse(&[]).unwrap(), [node(128, Face::Softva, None)]);
        assert_eq!(parse(&[("RENDERNODE_COUNT", "0")]).unwrap(), []);
    }

    #[test]
    fn faults_go_to_all_nodes_or_one() {
        let nodes = parse(&[
            ("RENDERNODE_FACES", "i915,softva"),
            ("RENDERNODE_FAULT", "gone:7,no-permission@129"),
        ]);
        let expect = [
            node(128, Face::I915, Some(Fault::Gone(7))),
            node(129, Face::Softva, Some(Fault::NoPermission)),
        ];
        assert_eq!(nodes.unwrap(), expect);
    }

    #[test]
    fn what_is_not_understood_is_named() {
        let check = |name: &str, value: &str| {
            let message = parse(&[(name, value)]).unwrap_err();
            let named = value.rsplit([',']).next().unwrap_or(value);
            assert!(message.contains(name) && message.contains(named), "{message}");
            assert!(message.contains("expected"), "{message}");
        };
        check("RENDERNODE_FACE", "nvidia");
        check("RENDERNODE_FACES", "i915,x");
        check("RENDERNODE_COUNT", "65");
        check("RENDERNODE_FAULT", "gone:soon");
        check("RENDERNODE_FAULT", "no-permission@x");
    }
}
