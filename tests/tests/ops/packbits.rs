//! Bits and back, in the order of numpy's.

use ds_core::DType;
use ds_ops::packbits::{packbits, unpackbits};
use ds_tests::{
    cases::{Numbers, tensor},
    compare::values,
};

use crate::{FLOATS, stream};

#[test]
fn the_first_element_is_the_highest_bit() {
    let flags = [1.0, 0.0, 0.0, 0.0, 0.0, 1.0, 1.0, 0.0];
    for dtype in [DType::Bool, DType::U8] {
        let x = tensor(stream(), dtype, &[8], &flags).unwrap();
        let bits = packbits(stream(), &x).unwrap();
        assert_eq!(bits.to_bytes(stream()).unwrap(), [0b1000_0110]);
        let back = unpackbits(stream(), &bits, dtype, false).unwrap();
        assert_eq!(values(stream(), &back).unwrap(), flags);
    }
}

#[test]
fn signs_come_back_as_ones_and_zeros_of_both_signs_and_nan_count_as_positive() {
    for dtype in FLOATS {
        let x = [
            0.0,
            -0.0,
            f64::NAN,
            -1.0,
            2.0,
            f64::NEG_INFINITY,
            f64::INFINITY,
            -1e-7,
        ];
        let x = tensor(stream(), dtype, &[8], &x).unwrap();
        let bits = packbits(stream(), &x).unwrap();
        assert_eq!(bits.to_bytes(stream()).unwrap(), [0b1110_1010], "{dtype}");
        let x = Numbers::new(1).tensor(stream(), dtype, &[80_008]).unwrap();
        let bits = packbits(stream(), &x).unwrap();
        let signs = values(stream(), &unpackbits(stream(), &bits, dtype, true).unwrap()).unwrap();
        for (x, sign) in values(stream(), &x).unwrap().iter().zip(signs) {
            assert_eq!(sign, if *x < 0.0 { -1.0 } else { 1.0 });
        }
    }
}

#[test]
fn elements_that_fill_no_byte_are_refused() {
    let x = tensor(stream(), DType::F32, &[7], &[1.0; 7]).unwrap();
    let error = packbits(stream(), &x).unwrap_err();
    assert!(
        error
            .to_string()
            .contains("x has 7 elements, which is no multiple of 8"),
        "{error}"
    );
    let bits = tensor(stream(), DType::U8, &[1], &[5.0]).unwrap();
    let error = unpackbits(stream(), &bits, DType::Bool, true).unwrap_err();
    assert!(error.to_string().contains("bool has no -1"), "{error}");
}
