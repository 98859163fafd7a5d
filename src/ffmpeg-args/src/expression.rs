//! Sizes given to `scale` as expressions, recognised by their structure.
//!
//! Jellyfin leaves the arithmetic of software scaling to ffmpeg. The expression is parsed into a
//! tree and compared with the tree of the one that [`Scale::Fit`] stands for, with the bounds left
//! open; so spaces and the numbers don't matter, and any other arithmetic is no match.

use crate::Scale;
use crate::numbers::decimal;

/// The parts of contract 2.5's software expression, `MW` and `MH` open.
const FIT_WIDTH: &str = "trunc(min(max(iw,ih*a),min(MW,MH*a))/2)*2";
const FIT_HEIGHT: &str = "trunc(min(max(iw/a,ih),min(MW/a,MH))/2)*2";

/// Sides beyond this are no picture size.
const LARGEST_SIDE: u32 = 16384;

/// Nesting beyond this is nobody's scaler.
const DEEPEST: usize = 32;

#[derive(Debug, Clone, PartialEq)]
enum Tree {
    Number(f64),
    Name(String),
    Call(String, Vec<Tree>),
    Operation(char, Box<Tree>, Box<Tree>),
}

/// The size that the two expressions of `scale` stand for, `None` if it is not one of those known.
pub(crate) fn scale(width: &str, height: &str) -> Option<Scale> {
    let (width, height) = (parse(width)?, parse(height)?);
    if let (Some(width), Some(height)) = (constant(&width), constant(&height)) {
        return exact(width, height);
    }
    let mut bounds = Bounds::default();
    let fits =
        bounds.unify(&parse(FIT_WIDTH)?, &width) && bounds.unify(&parse(FIT_HEIGHT)?, &height);
    let (max_width, max_height) = (side(bounds.width?)?, side(bounds.height?)?);
    fits.then_some(Scale::Fit { max_width, max_height })
}

/// A fixed size; odd sides don't fit 4:2:0 pictures.
fn exact(width: f64, height: f64) -> Option<Scale> {
    let (width, height) = (side(width)?, side(height)?);
    (width % 2 == 0 && height % 2 == 0).then_some(Scale::Exact { width, height })
}

fn side(pixels: f64) -> Option<u32> {
    let whole = pixels.fract() == 0.0 && (2.0..=f64::from(LARGEST_SIDE)).contains(&pixels);
    whole.then_some(pixels as u32)
}

/// A fixed size given as two numbers (`w=1280:h=720`).
pub(crate) fn fixed(width: &str, height: &str) -> Option<Scale> {
    exact(decimal(width)?, decimal(height)?)
}

#[derive(Default)]
struct Bounds {
    width: Option<f64>,
    height: Option<f64>,
}

impl Bounds {
    /// Whether `tree` has the form of `form`, with the same number wherever a bound stands.
    fn unify(&mut self, form: &Tree, tree: &Tree) -> bool {
        match (form, tree) {
            (Tree::Name(name), Tree::Number(value)) => {
                let bound = match name.as_str() {
                    "MW" => &mut self.width,
                    "MH" => &mut self.height,
                    _ => return false,
                };
                *bound.get_or_insert(*value) == *value
            }
            (Tree::Call(name, arguments), Tree::Call(other, others)) => {
                name == other
                    && arguments.len() == others.len()
                    && arguments.iter().zip(others).all(|(form, tree)| self.unify(form, tree))
            }
            (Tree::Operation(sign, a, b), Tree::Operation(other, c, d)) => {
                sign == other && self.unify(a, c) && self.unify(b, d)
            }
            (Tree::Name(name), Tree::Name(other)) => name == other && name != "MW" && name != "MH",
            _ => form == tree,
        }
    }
}

/// The value of an expression without names (`trunc(1281/2)*2`).
fn constant(tree: &Tree) -> Option<f64> {
    match tree {
        Tree::Number(value) => Some(*value),
        Tree::Name(_) => None,
        Tree::Call(name, arguments) => match (name.as_str(), arguments.as_slice()) {
            ("trunc", [value]) => Some(constant(value)?.trunc()),
            _ => None,
        },
        Tree::Operation(sign, a, b) => {
            let (a, b) = (constant(a)?, constant(b)?);
            match sign {
                '*' => Some(a * b),
                '/' if b != 0.0 => Some(a / b),
                _ => None,
            }
        }
    }
}

fn parse(text: &str) -> Option<Tree> {
    let mut parser = Parser { rest: text.trim(), depth: 0 };
    let tree = parser.product()?;
    parser.rest.is_empty().then_some(tree)
}

/// Products, calls, names and numbers: all that the known expressions are made of.
struct Parser<'a> {
    rest: &'a str,
    depth: usize,
}

impl Parser<'_> {
    fn product(&mut self) -> Option<Tree> {
        self.depth += 1;
        if self.depth > DEEPEST {
            return None;
        }
        let mut tree = self.factor()?;
        while let Some(sign) = self.eat(&['*', '/']) {
            tree = Tree::Operation(sign, Box::new(tree), Box::new(self.factor()?));
        }
        self.depth -= 1;
        Some(tree)
    }

    fn factor(&mut self) -> Option<Tree> {
        if self.eat(&['(']).is_some() {
            let tree = self.product()?;
            return self.eat(&[')']).map(|_| tree);
        }
        let word = self.word();
        if word.is_empty() {
            return None;
        }
        if word.starts_with(|c: char| c.is_ascii_digit()) {
            return decimal(word).map(Tree::Number);
        }
        let name = word.to_owned();
        if self.eat(&['(']).is_none() {
            return Some(Tree::Name(name));
        }
        let mut arguments = vec![self.product()?];
        while self.eat(&[',']).is_some() {
            arguments.push(self.product()?);
        }
        self.eat(&[')']).map(|_| Tree::Call(name, arguments))
    }

    fn word(&mut self) -> &str {
        let plain = |c: char| c.is_ascii_alphanumeric() || c == '_' || c == '.';
        let end = self.rest.find(|c| !plain(c)).unwrap_or(self.rest.len());
        let (word, rest) = self.rest.split_at(end);
        self.rest = rest.trim_start();
        word
    }

    fn eat(&mut self, signs: &[char]) -> Option<char> {
        let sign = self.rest.chars().next().filter(|c| signs.contains(c))?;
        self.rest = self.rest[1..].trim_start();
        Some(sign)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(width: &str, height: &str, expect: Option<Scale>) {
        assert_eq!(scale(width, height), expect, "{width}:{height}");
    }

    fn fit(max_width: u32, max_height: u32) -> Option<Scale> {
        Some(Scale::Fit { max_width, max_height })
    }

    #[test]
    fn the_software_expression_is_a_fit() {
        check(
            "trunc(min(max(iw,ih*a),min(1920,1080*a))/2)*2",
            "trunc(min(max(iw/a,ih),min(1920/a,1080))/2)*2",
            fit(1920, 1080),
        );
        check(
            " trunc( min( max(iw, ih * a), min(427, 240*a) ) / 2 ) * 2",
            "trunc(min(max(iw/a,ih),min(427/a,240))/2)*2",
            fit(427, 240),
        );
    }

    #[test]
    fn other_arithmetic_is_not() {
        let width = "trunc(min(max(iw,ih*a),min(1920,1080*a))/2)*2";
        for height in [
            "trunc(min(max(iw/a,ih),min(1280/a,1080))/2)*2",
            "trunc(min(max(iw/a,ih),min(1920/a,1080))/4)*2",
            "trunc(min(max(iw/dar,ih),min(1920/dar,1080))/2)*2",
            "trunc(max(min(iw/a,ih),min(1920/a,1080))/2)*2",
            "trunc(ow/a/2)*2",
            "MH",
            "-2",
            "",
        ] {
            check(width, height, None);
        }
        check(&width.replace("1920", "MW"), "1080", None);
        check(&"(".repeat(10_000), "2", None);
    }

    #[test]
    fn numbers_are_exact_if_even() {
        let exact = |width, height| Some(Scale::Exact { width, height });
        check("1280", "720", exact(1280, 720));
        check("trunc(1281/2)*2", "trunc(721/2)*2", exact(1280, 720));
        check("1281", "720", None);
        check("0", "720", None);
        check("99999", "720", None);
        assert_eq!(fixed("720", "404"), exact(720, 404));
        assert_eq!(fixed("iw", "404"), None);
    }
}
