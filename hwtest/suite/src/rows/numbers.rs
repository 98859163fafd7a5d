//! Frames that carry their number in a form that survives scaling and encoding: a row of black and
//! white blocks, sixteen for the number, most significant first, and one for parity; below it the
//! same inverted. A block and its inverse are compared, so brightness doesn't matter, and a picture
//! that is mixed of two reads as neither.

/// Bits of a number.
const BITS: usize = 16;
/// Blocks in a row.
const COLUMNS: usize = BITS + 1;
/// Brightness of a block that is set and, below, of one that isn't, in 8 bit video range.
const WHITE: u8 = 235;
/// See above.
const BLACK: u8 = 16;
/// Least difference of a block to its inverse.
const CONTRAST: u32 = 80;

/// Greatest number.
pub const MOST: u64 = (1 << BITS) - 1;

/// Where blocks are, as parts of the picture: the two rows' top and bottom, in tenths of the height.
const ROWS: [(usize, usize); 2] = [(1, 4), (5, 8)];

/// Pixels across that a block takes.
fn column(index: usize, width: usize) -> std::ops::Range<usize> {
    index * width / COLUMNS..(index + 1) * width / COLUMNS
}

/// The blocks of a number, from the left.
fn blocks(number: u64) -> [bool; COLUMNS] {
    let mut blocks = [false; COLUMNS];
    for (index, block) in blocks.iter_mut().take(BITS).enumerate() {
        *block = number >> (BITS - 1 - index) & 1 == 1;
    }
    blocks[BITS] = number.count_ones() % 2 == 1;
    blocks
}

/// A picture of planar YUV 4:2:0 in 8 bit: the blocks on a ground that moves from one to the next.
/// Both sides are even.
pub fn draw(number: u64, width: usize, height: usize) -> Vec<u8> {
    let period = 256;
    // From dark to light and back, as often as the longest row needs.
    let ramp: Vec<u8> = (0..period + width)
        .map(|x| (x % period).min(period - x % period) as u8)
        .map(|step| 48 + step)
        .collect();
    let at = |line: usize, speed: usize| (number as usize * speed + line) % period;
    let mut picture = Vec::with_capacity(width * height * 3 / 2);
    for y in 0..height {
        let start = at(y, 3);
        picture.extend_from_slice(&ramp[start..start + width]);
    }
    for (row, (top, bottom)) in ROWS.into_iter().enumerate() {
        let mut line = picture[..width].to_vec();
        for (index, block) in blocks(number).into_iter().enumerate() {
            line[column(index, width)].fill(if block == (row == 0) { WHITE } else { BLACK });
        }
        for y in top * height / 10..bottom * height / 10 {
            picture[y * width..(y + 1) * width].copy_from_slice(&line);
        }
    }
    for speed in [1, 2] {
        for y in 0..height / 2 {
            let start = at(y, speed);
            picture.extend_from_slice(&ramp[start..start + width / 2]);
        }
    }
    picture
}

/// The number of a picture, by its brightness alone.
///
/// # Errors
/// Which block can't be told, or that the parity is wrong.
pub fn read(brightness: &[u8], width: usize, height: usize) -> Result<u64, String> {
    let mean = |index: usize, (top, bottom): (usize, usize)| {
        // The middle of a block: what scaling has made of its edges doesn't count.
        let columns = column(index, width);
        let inset = columns.len() / 4;
        let (top, bottom) = (top * height / 10, bottom * height / 10);
        let margin = (bottom - top) / 4;
        let lines = top + margin..bottom - margin;
        let mut sum = 0;
        for y in lines.clone() {
            let line = &brightness[y * width..(y + 1) * width];
            let block = &line[columns.start + inset..columns.end - inset];
            sum += block.iter().map(|pixel| u32::from(*pixel)).sum::<u32>() / block.len() as u32;
        }
        sum / lines.len() as u32
    };
    let mut number = 0;
    let mut ones = 0;
    for index in 0..COLUMNS {
        let (plain, inverse) = (mean(index, ROWS[0]), mean(index, ROWS[1]));
        if plain.abs_diff(inverse) < CONTRAST {
            return Err(format!("block {index} is {plain}, its inverse {inverse}"));
        }
        let set = plain > inverse;
        ones += u32::from(set);
        if index < BITS {
            number = number << 1 | u64::from(set);
        }
    }
    if ones % 2 == 1 { Err(format!("{number} with the wrong parity")) } else { Ok(number) }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SIZE: (usize, usize) = (320, 180);

    fn brightness(number: u64) -> Vec<u8> {
        let mut picture = draw(number, SIZE.0, SIZE.1);
        assert_eq!(picture.len(), SIZE.0 * SIZE.1 * 3 / 2);
        picture.truncate(SIZE.0 * SIZE.1);
        picture
    }

    #[test]
    fn what_is_drawn_is_read() {
        for number in [0, 1, 2, 419, 420, 0x5555, 0xaaaa, MOST] {
            assert_eq!(read(&brightness(number), SIZE.0, SIZE.1), Ok(number));
        }
    }

    #[test]
    fn a_mixture_of_two_is_neither() {
        let (one, other) = (brightness(41), brightness(42));
        let mixed: Vec<u8> = one.iter().zip(&other).map(|(a, b)| a.midpoint(*b)).collect();
        assert!(read(&mixed, SIZE.0, SIZE.1).is_err());
    }

    #[test]
    fn a_block_that_has_turned_over_is_found() {
        let (mut turned, other) = (brightness(0), brightness(1));
        for y in 0..SIZE.1 {
            let columns = column(BITS - 1, SIZE.0);
            let line = y * SIZE.0;
            turned[line + columns.start..line + columns.end]
                .copy_from_slice(&other[line + columns.start..line + columns.end]);
        }
        assert!(read(&turned, SIZE.0, SIZE.1).unwrap_err().contains("parity"));
    }
}
