//! The device in memory does what a test of the engine asks of it: hold, release, fail, cut short, lose.

#![allow(clippy::unwrap_used, reason = "tests")]

use corelog_shards::{
    device::{
        Completion, Device, Errno, Operation, Token, Verb, WriteSync,
        ram::{Effect, Fault, MemoryControl, MemoryDevice, MemoryImage},
    },
    ids::DeviceIndex,
    memory::PooledBuffer,
};
use std::{sync::Arc, time::Duration};

const BLOCK: usize = 4096;
const FIRST: DeviceIndex = DeviceIndex(0);

fn device() -> (Arc<MemoryImage>, MemoryDevice, Arc<MemoryControl>) {
    let image = MemoryImage::new(&[16 * BLOCK as u64]);
    let (device, control) = MemoryDevice::new(&image, 8).unwrap();
    (image, device, control)
}

fn write(offset: usize, byte: u8) -> Operation {
    let mut buffer = PooledBuffer::alone(BLOCK).unwrap();
    buffer.as_mut_slice().fill(byte);
    Operation::Write { device: FIRST, offset: offset as u64, bytes: buffer.into(), sync: WriteSync::None }
}

fn taken(device: &mut MemoryDevice) -> Vec<(u64, Result<u64, Errno>)> {
    let mut completions: Vec<Completion> = Vec::new();
    device.poll(&mut completions).unwrap();
    completions.into_iter().map(|completion| (completion.token.0, completion.result)).collect()
}

fn byte(image: &MemoryImage, offset: usize) -> u8 {
    image.with(FIRST, |bytes| bytes[offset]).unwrap()
}

#[test]
fn held_operations_complete_in_the_order_of_their_release() {
    let (image, mut device, control) = device();
    control.hold(Verb::Write, true);
    for number in 0..3 {
        device.submit(Token(number), write(number as usize * BLOCK, 7)).unwrap();
    }
    device.submit(Token(9), Operation::Sync { device: FIRST }).unwrap();
    assert_eq!(taken(&mut device), [(9, Ok(0))], "only writes are held");
    assert_eq!(byte(&image, BLOCK), 0, "nothing held is on the image");
    let held = control.held();
    assert_eq!(
        held.iter().map(|held| (held.token.0, held.offset)).collect::<Vec<_>>(),
        [(0, 0), (1, BLOCK as u64), (2, 2 * BLOCK as u64)]
    );
    assert!(control.release(held[2].id) && control.release(held[0].id) && !control.release(held[0].id));
    assert_eq!(taken(&mut device).iter().map(|(token, _)| *token).collect::<Vec<_>>(), [2, 0]);
    assert_eq!((byte(&image, 2 * BLOCK), byte(&image, BLOCK), device.in_flight()), (7, 0, 1));
}

#[test]
fn a_release_from_another_thread_wakes_the_core() {
    let (_image, mut device, control) = device();
    control.hold(Verb::Write, true);
    device.submit(Token(1), write(0, 1)).unwrap();
    let releaser = std::thread::spawn(move || {
        std::thread::sleep(Duration::from_millis(20));
        control.release_all();
    });
    let mut completions = Vec::new();
    while completions.is_empty() {
        device.wait(None, &mut completions).unwrap();
    }
    releaser.join().unwrap();
}

#[test]
fn faults_hit_the_operations_that_they_name() {
    let (image, mut device, control) = device();
    let fault = Fault { verb: Verb::Write, skip: 1, times: 1, effect: Effect::Fail(Errno(libc::EIO)) };
    control.inject(fault);
    control.inject(Fault { verb: Verb::Sync, skip: 0, times: 2, effect: Effect::Fail(Errno(libc::ENOSPC)) });
    for number in 0..3 {
        device.submit(Token(number), write(number as usize * BLOCK, 5)).unwrap();
        device.submit(Token(10 + number), Operation::Sync { device: FIRST }).unwrap();
    }
    let (block, full) = (Ok(BLOCK as u64), Err(Errno(libc::ENOSPC)));
    let expected = [(0, block), (10, full), (1, Err(Errno(libc::EIO))), (11, full), (2, block), (12, Ok(0))];
    assert_eq!(taken(&mut device), expected);
    assert_eq!((byte(&image, 0), byte(&image, BLOCK), byte(&image, 2 * BLOCK)), (5, 0, 5));
}

#[test]
fn a_short_write_does_a_part_and_a_lost_one_nothing() {
    let (image, mut device, control) = device();
    control.inject(Fault { verb: Verb::Write, skip: 0, times: 1, effect: Effect::Short(512) });
    control.inject(Fault { verb: Verb::Write, skip: 0, times: 1, effect: Effect::Lost });
    device.submit(Token(1), write(0, 3)).unwrap();
    device.submit(Token(2), write(BLOCK, 3)).unwrap();
    assert_eq!(taken(&mut device), [(1, Ok(512)), (2, Ok(BLOCK as u64))]);
    assert_eq!((byte(&image, 511), byte(&image, 512), byte(&image, BLOCK)), (3, 0, 0));
}

#[test]
fn the_end_of_the_device_is_an_end() {
    let (_image, mut device, _control) = device();
    device.submit(Token(1), write(16 * BLOCK, 3)).unwrap();
    device.submit(Token(2), write(16 * BLOCK - 512, 3)).unwrap();
    assert_eq!(taken(&mut device), [(1, Err(Errno(libc::ENOSPC))), (2, Ok(512))]);
}

/// A write of a process that died can land while the next one already works.
#[test]
fn what_is_held_can_land_after_its_device_is_gone() {
    let (image, mut device, control) = device();
    control.hold(Verb::Write, true);
    device.submit(Token(1), write(0, 6)).unwrap();
    let before = image.snapshot();
    drop(device);
    control.release_all();
    assert_eq!((byte(&image, 0), byte(&before, 0)), (6, 0));
}
