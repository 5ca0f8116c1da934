//! Floats of 4 to 16 bits: what their codes stand for, and the code nearest to a number.
//!
//! # Source
//! OCP 8-bit floating point specification 1.0 (`E4M3`, `E5M2`); OCP microscaling formats 1.0 for
//! those without infinities.

/// A format: a sign, an exponent with bias `2^(exponent_bits - 1) - 1`, a mantissa. Exponent 0 holds
/// zeros and denormals.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MiniFloat {
    /// Width of the exponent.
    pub exponent_bits: u32,
    /// Width of the mantissa.
    pub mantissa_bits: u32,
    /// What the greatest codes stand for.
    pub top: Top,
}

/// What the greatest codes of a format stand for, and so what a number beyond its range becomes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Top {
    /// As IEEE 754: the greatest exponent has infinity and NaN; beyond the range is infinity.
    Infinity,
    /// Only all ones is NaN, there is no infinity; beyond the range is NaN.
    Nan,
    /// All are numbers; beyond the range is the greatest one, and NaN has no code.
    Numbers,
}

impl MiniFloat {
    /// [`ds_schema::DType::F8E4M3`]; `torch.float8_e4m3fn`.
    pub const E4M3: Self = Self::new(4, 3, Top::Nan);
    /// [`ds_schema::DType::F8E5M2`]; `torch.float8_e5m2`.
    pub const E5M2: Self = Self::new(5, 2, Top::Infinity);

    /// A format of `1 + exponent_bits + mantissa_bits` bits.
    pub const fn new(exponent_bits: u32, mantissa_bits: u32, top: Top) -> Self {
        Self {
            exponent_bits,
            mantissa_bits,
            top,
        }
    }

    /// Width of a code.
    pub const fn bits(self) -> u32 {
        1 + self.exponent_bits + self.mantissa_bits
    }

    /// The greatest finite number.
    pub fn max(self) -> f64 {
        self.to_f64(self.max_code())
    }

    /// What `code` stands for; exact. Bits above the sign are not looked at.
    pub fn to_f64(self, code: u32) -> f64 {
        let sign = 1 << (self.bits() - 1);
        let magnitude = code & (sign - 1);
        let (exponent, mantissa) = (
            magnitude >> self.mantissa_bits,
            magnitude & ((1 << self.mantissa_bits) - 1),
        );
        let value = if magnitude > self.max_code() {
            match (self.top, mantissa) {
                (Top::Infinity, 0) => f64::INFINITY,
                _ => f64::NAN,
            }
        } else if exponent == 0 {
            f64::from(mantissa) * power(self.least_quantum())
        } else {
            let whole = mantissa + (1 << self.mantissa_bits);
            f64::from(whole) * power(self.least_quantum() + exponent.cast_signed() - 1)
        };
        if code & sign == 0 { value } else { -value }
    }

    /// The code of the number nearest to `value`, ties to the even code. NaN becomes all ones with
    /// its sign, which is the greatest number where all codes are numbers.
    #[allow(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "a whole number below 2^(mantissa_bits + 1)"
    )]
    pub fn from_f64(self, value: f64) -> u32 {
        let sign = u32::from(value.is_sign_negative()) << (self.bits() - 1);
        let ones = (1 << (self.bits() - 1)) - 1;
        let beyond = match self.top {
            Top::Infinity => self.max_code() + 1,
            Top::Nan => ones,
            Top::Numbers => self.max_code(),
        };
        if value.is_nan() {
            return sign | ones;
        }
        if value.is_infinite() {
            return sign | beyond;
        }
        let mantissa_bits = self.mantissa_bits.cast_signed();
        let quantum = (exponent_of(value) - mantissa_bits).max(self.least_quantum());
        // Exact but for the rounding: quanta are powers of two, and few fit into the mantissa.
        let quanta = (value.abs() * power(-quantum)).round_ties_even() as u32;
        // Codes count on over the exponents, and a carry is the next exponent's first code.
        let steps = (quantum - self.least_quantum()).cast_unsigned();
        let code = (steps << self.mantissa_bits).checked_add(quanta);
        match code {
            Some(code) if code <= self.max_code() => sign | code,
            _ => sign | beyond,
        }
    }

    /// The code of the greatest finite number.
    const fn max_code(self) -> u32 {
        let codes = 1 << (self.exponent_bits + self.mantissa_bits);
        match self.top {
            Top::Infinity => codes - (1 << self.mantissa_bits) - 1,
            Top::Nan => codes - 2,
            Top::Numbers => codes - 1,
        }
    }

    /// Binary logarithm of the least positive number.
    const fn least_quantum(self) -> i32 {
        2 - (1 << (self.exponent_bits - 1)) - self.mantissa_bits.cast_signed()
    }
}

/// The exponent of a finite number; the least one for denormals and zeros.
fn exponent_of(value: f64) -> i32 {
    let field = (value.to_bits() >> 52) & 0x7ff;
    i32::try_from(field).unwrap_or(0).max(1) - 1023
}

/// `2^exponent`, where f64 has it among its normal numbers; infinity and 0 beyond.
fn power(exponent: i32) -> f64 {
    2.0_f64.powi(exponent)
}

#[cfg(test)]
mod tests {
    use super::*;

    const FORMATS: [MiniFloat; 7] = [
        MiniFloat::E4M3,
        MiniFloat::E5M2,
        MiniFloat::new(2, 1, Top::Numbers),
        MiniFloat::new(3, 2, Top::Numbers),
        MiniFloat::new(4, 3, Top::Numbers),
        MiniFloat::new(4, 7, Top::Numbers),
        MiniFloat::new(5, 10, Top::Infinity),
    ];

    #[test]
    fn ranges_are_the_published_ones() {
        let ranges = [448.0, 57344.0, 6.0, 28.0, 480.0, 510.0, 65504.0];
        assert_eq!(FORMATS.map(MiniFloat::max), ranges);
        assert_eq!(MiniFloat::new(5, 2, Top::Numbers).max(), 114_688.0);
        let least = FORMATS.map(|format| format.to_f64(1).log2());
        assert_eq!(least, [-9.0, -16.0, 0.0 - 1.0, -4.0, -9.0, -13.0, -24.0]);
    }

    /// Every code, the middle to the next one, and the f64 on both sides of it.
    #[test]
    fn every_code_comes_back_and_what_lies_between_goes_to_the_nearest_with_ties_to_even() {
        for format in FORMATS {
            let sign = 1 << (format.bits() - 1);
            let from = |value: f64| format.from_f64(value);
            for code in 0..sign {
                let (low, high) = (format.to_f64(code), format.to_f64(code + 1));
                if !low.is_finite() {
                    continue;
                }
                assert_eq!((from(low), from(-low)), (code, code | sign), "{format:?}");
                let is_last = code + 1 == sign || !high.is_finite();
                // One more step of the greatest numbers, where the next code is none.
                let next = if is_last {
                    2.0 * low - format.to_f64(code - 1)
                } else {
                    high
                };
                let above = if is_last {
                    from(f64::INFINITY)
                } else {
                    code + 1
                };
                let middle = f64::midpoint(low, next);
                let even = if code % 2 == 0 { code } else { above };
                assert_eq!(from(middle), even, "{format:?} {middle:e}");
                assert_eq!(from(middle.next_up()), above, "{format:?} above {middle:e}");
                assert_eq!(
                    from(middle.next_down()),
                    code,
                    "{format:?} below {middle:e}"
                );
                assert_eq!(from(-middle.next_up()), above | sign);
            }
        }
    }

    #[test]
    fn half_precision_is_that_of_the_half_crate() {
        let format = MiniFloat::new(5, 10, Top::Infinity);
        for bits in 0..=u16::MAX {
            let (ours, theirs) = (format.to_f64(u32::from(bits)), half::f16::from_bits(bits));
            let same = ours.to_bits() == f64::from(theirs).to_bits();
            assert!(same || (ours.is_nan() && theirs.is_nan()), "{bits:x}");
        }
    }

    #[test]
    fn what_is_beyond_becomes_what_the_format_has() {
        let [e4m3, e5m2, e2m1, ..] = FORMATS;
        for (format, beyond, nan) in [(e4m3, 0x7f, 0x7f), (e5m2, 0x7c, 0x7f), (e2m1, 7, 7)] {
            let sign = 1 << (format.bits() - 1);
            for far in [1e9, 1e300, f64::MAX, f64::INFINITY] {
                assert_eq!(format.from_f64(far), beyond, "{far}");
                assert_eq!(format.from_f64(-far), beyond | sign, "-{far}");
            }
            assert_eq!(format.from_f64(f64::NAN.copysign(1.0)), nan);
            for near in [0.0, 5e-324, 1e-300] {
                assert_eq!(format.from_f64(near), 0);
                assert_eq!(format.from_f64(-near), sign);
            }
        }
        assert!(e4m3.to_f64(0x7f).is_nan() && e5m2.to_f64(0x7d).is_nan());
        // PyTorch 2.15: torch.tensor([464., 464.1]).to(torch.float8_e4m3fn) is 448 and NaN.
        assert_eq!([e4m3.from_f64(464.0), e4m3.from_f64(464.1)], [0x7e, 0x7f]);
    }
}
