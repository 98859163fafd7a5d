//! Presentation graphics as Blu-ray discs have them, written by hand: ffmpeg has no encoder for them.

/// A picture on a canvas, from a time on, ms; none clears the canvas.
#[derive(Debug, Clone, Copy)]
pub struct Shown {
    pub at_ms: u32,
    pub picture: Option<Place>,
}

/// Where a picture lies on the canvas, pixels.
#[derive(Debug, Clone, Copy)]
pub struct Place {
    pub x: u16,
    pub y: u16,
    pub width: u16,
    pub height: u16,
}

/// Luma, Cr, Cb, opacity: white, black, yellow, half a grey; the first is nothing.
const PALETTE: [[u8; 4]; 5] = [
    [16, 128, 128, 0],
    [235, 128, 128, 255],
    [16, 128, 128, 255],
    [210, 146, 16, 255],
    [120, 128, 128, 128],
];

/// Something like text: strokes with a black edge, and gaps between them.
fn colour(x: u16, y: u16, place: Place) -> u8 {
    let (across, down) = (x % 20, y % 24);
    let edge = |value: u16, from: u16, to: u16| value == from || value + 1 == to;
    match (across, down) {
        _ if x < 4 || y < 4 || x + 4 >= place.width || y + 4 >= place.height => 4,
        (0..14, 0..18) if edge(across, 0, 14) || edge(down, 0, 18) => 2,
        (0..14, 0..18) if (across / 3 + down / 4) % 2 == 0 => 1,
        (0..14, 0..18) => 3,
        _ => 0,
    }
}

fn run_lengths(place: Place) -> Vec<u8> {
    let mut data = Vec::new();
    for y in 0..place.height {
        let row: Vec<u8> = (0..place.width).map(|x| colour(x, y, place)).collect();
        for run in row.chunk_by(|a, b| a == b) {
            let (length, value) = (run.len() as u16, run[0]);
            let [high, low] = length.to_be_bytes();
            match (length, value) {
                (..64, 0) => data.extend([0, low]),
                (_, 0) => data.extend([0, 0x40 | high, low]),
                (..64, _) => data.extend([0, 0x80 | low, value]),
                _ => data.extend([0, 0xc0 | high, low, value]),
            }
        }
        data.extend([0, 0]);
    }
    data
}

fn segment(file: &mut Vec<u8>, ticks: u32, kind: u8, body: &[u8]) {
    file.extend(b"PG");
    file.extend(ticks.to_be_bytes());
    file.extend([0; 4]);
    file.push(kind);
    file.extend((body.len() as u16).to_be_bytes());
    file.extend(body);
}

fn numbers(values: &[u16]) -> Vec<u8> {
    values.iter().flat_map(|value| value.to_be_bytes()).collect()
}

/// A file of them (`.sup`) for a canvas of this size.
pub fn file(canvas: (u16, u16), shown: &[Shown]) -> Vec<u8> {
    let mut file = Vec::new();
    for (number, Shown { at_ms, picture }) in shown.iter().enumerate() {
        let ticks = at_ms * 90;
        let mut composition = numbers(&[canvas.0, canvas.1]);
        // A rate that nobody reads, number, beginning of an epoch, no palette's update, palette 0.
        composition.push(0x10);
        composition.extend(numbers(&[number as u16]));
        composition.extend([0x80, 0, 0, u8::from(picture.is_some())]);
        if let Some(place) = picture {
            composition.extend([0, 0, 0, 0]);
            composition.extend(numbers(&[place.x, place.y]));
        }
        segment(&mut file, ticks, 0x16, &composition);
        if let Some(place) = picture {
            let mut window = vec![1, 0];
            window.extend(numbers(&[place.x, place.y, place.width, place.height]));
            segment(&mut file, ticks, 0x17, &window);
            let mut palette = vec![0, 0];
            for (index, entry) in PALETTE.iter().enumerate() {
                palette.push(index as u8);
                palette.extend(entry);
            }
            segment(&mut file, ticks, 0x14, &palette);
            let data = run_lengths(*place);
            let mut object = vec![0, 0, 0, 0xc0];
            object.extend(&(data.len() as u32 + 4).to_be_bytes()[1..]);
            object.extend(numbers(&[place.width, place.height]));
            object.extend(data);
            segment(&mut file, ticks, 0x15, &object);
        }
        segment(&mut file, ticks, 0x80, &[]);
    }
    file
}
