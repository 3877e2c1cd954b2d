//! Sums, arrangements and products of values, whatever their forms.

use super::*;

impl Lowering<'_> {
    /// Σ factor · value + constant, all values and the constant with `fraction` bits after the point.
    pub(super) fn linear(&mut self, terms: &[(&Value, i64)], constant: i64, fraction: u32) -> Result<Value, PlanError> {
        let all = |form: fn(&Held) -> bool| terms.iter().all(|(value, _)| form(&value.held));
        if all(|held| matches!(held, Held::Constant(_) | Held::Public(_))) {
            let wires = terms.iter().map(|(value, factor)| Ok((self.public_wire(value)?, *factor)));
            let wires = wires.collect::<Result<Vec<_>, PlanError>>()?;
            return Ok(Value::public(combine(&mut self.builder, &wires, constant), fraction));
        }
        let masked: Option<Vec<_>> = terms
            .iter()
            .map(|(value, factor)| match value.held {
                Held::Masked(masked) => Some((masked, *factor)),
                _ => None,
            })
            .collect();
        if let Some(masked) = masked {
            let hats: Vec<_> = masked.iter().map(|(masked, factor)| (masked.hat, *factor)).collect();
            let masks: Vec<_> = masked.iter().map(|(masked, factor)| (masked.mask, *factor)).collect();
            let hat = combine(&mut self.builder, &hats, constant);
            let held = Held::Masked(Masked { hat, mask: combine(&mut self.builder, &masks, 0) });
            return Ok(Value { held, fraction });
        }
        let wires = terms.iter().map(|(value, factor)| Ok((self.shares(value)?, *factor)));
        let wires = wires.collect::<Result<Vec<_>, PlanError>>()?;
        Ok(Value::private(combine(&mut self.builder, &wires, constant), fraction))
    }

    /// Applies the same local step to whatever form the value has.
    pub(super) fn locally(
        &mut self,
        value: &Value,
        common: impl Fn(&mut Builder, Wire<Common>) -> Wire<Common>,
        masks: impl Fn(&mut Builder, Wire<crate::plan::Mask>) -> Wire<crate::plan::Mask>,
        shares: impl Fn(&mut Builder, Wire<Additive>) -> Wire<Additive>,
    ) -> Result<Value, PlanError> {
        let held = match &value.held {
            Held::Constant(_) | Held::Public(_) => {
                let wire = self.public_wire(value)?;
                Held::Public(common(&mut self.builder, wire))
            }
            Held::Masked(Masked { hat, mask }) => {
                Held::Masked(Masked { hat: common(&mut self.builder, *hat), mask: masks(&mut self.builder, *mask) })
            }
            Held::Private(_) | Held::Variable { .. } => {
                let wire = self.shares(value)?;
                Held::Private(shares(&mut self.builder, wire))
            }
        };
        Ok(Value { held, fraction: value.fraction })
    }

    /// The elements of `value` at `places`.
    pub(crate) fn arrange(&mut self, value: &Value, places: Vec<u32>) -> Result<Value, PlanError> {
        let pick = |all: &[u32]| -> Vec<u32> {
            places.iter().map(|place| all.get(*place as usize).copied().unwrap_or(NOWHERE)).collect()
        };
        let held = match &value.held {
            Held::Constant(values) => {
                let of = |place: &u32| values.get(*place as usize).copied().unwrap_or(0.0);
                Held::Constant(Rc::new(places.iter().map(of).collect()))
            }
            Held::Variable { index, places: before } => {
                let places = before.as_ref().map_or_else(|| places.clone(), |before| pick(before));
                Held::Variable { index: *index, places: Some(Rc::new(places)) }
            }
            Held::Private(wire) => Held::Private(self.arrange_wire(*wire, Rc::new(places))),
            _ => {
                let to = |places: &Vec<u32>| places.clone();
                return self.locally(
                    value,
                    |b, x| gather(b, x, to(&places)),
                    |b, x| gather(b, x, to(&places)),
                    |b, x| gather(b, x, to(&places)),
                );
            }
        };
        Ok(Value { held, fraction: value.fraction })
    }

    /// Both with the same number of bits after the point.
    pub(super) fn aligned(&mut self, mut x: Value, mut y: Value) -> Result<(Value, Value), PlanError> {
        // A constant takes the other's scale, unless it needs more bits after the point: beside integers, say.
        match (self.least_fraction(&x), self.least_fraction(&y)) {
            (None, None) => {
                self.beside(&mut x, y.fraction);
                self.beside(&mut y, x.fraction);
            }
            (least_x, least_y) => {
                x.fraction = least_x.unwrap_or(x.fraction);
                y.fraction = least_y.unwrap_or(y.fraction);
            }
        }
        let (f, least) = (self.fraction(), x.fraction.min(y.fraction));
        let finest = x.fraction.max(y.fraction);
        // What is finer than a product comes down to the other's scale, not the other up to where it may not fit.
        let fraction = if finest <= 2 * f { finest } else { least.clamp(f, 2 * f) };
        Ok((self.at(&x, fraction)?, self.at(&y, fraction)?))
    }

    /// A value and one small number that it is multiplied by, such as a learning rate, of which f bits after the point would
    /// keep less than half of the f significant ones: with as many as there is room for beside all of the value's. Nothing is
    /// truncated, so products finer than 2f come of it.
    pub(super) fn small_factor(&self, id: Id, x: &Value, y: &Value) -> Option<(Value, Value)> {
        let f = self.fraction() as i32;
        let bits = |factor: f64| libm::ilogb(factor);
        let small = |value: &Value| Self::uniform(value).filter(|c| *c != 0.0 && 2 * bits(*c) < -f);
        let exact = |factor: f64| factor * power_of_two(f) == libm::rint(factor * power_of_two(f));
        let result = self.program.node(id)?.bound.bits;
        let fine = |value: &Value, factor: &Value| {
            // One bit for the sign, one for rounding the factor up, one that is left free; and no more than can be cut off again.
            let k = self.program.numbers().ring_bits as i32;
            let room = (k - 3 - result).min(k - 2 + f) - value.fraction as i32;
            let number = small(factor).filter(|number| !exact(*number) && !value.is_public())?;
            let fraction = room.min(f - bits(number));
            (fraction > f).then(|| Value { held: factor.held.clone(), fraction: fraction as u32 })
        };
        match (fine(x, y), fine(y, x)) {
            (Some(y), _) => Some((x.clone(), y)),
            (_, Some(x)) => Some((x, y.clone())),
            _ => None,
        }
    }

    /// Both with so few bits after the point that their product has at most 2f.
    pub(super) fn factors(&mut self, mut x: Value, mut y: Value) -> Result<(Value, Value), PlanError> {
        let f = self.fraction();
        for value in [&mut x, &mut y] {
            if let Held::Constant(values) = &value.held {
                value.fraction = self.exact_fraction(values);
            }
        }
        if x.fraction + y.fraction > 2 * f {
            if x.fraction > f {
                x = self.at(&x, f)?;
            }
            if x.fraction + y.fraction > 2 * f && y.fraction > f {
                y = self.at(&y, f)?;
            }
        }
        Ok((x, y))
    }

    /// x · y, whose scales are those of factors.
    pub(super) fn product(&mut self, id: Id, bilinear: Bilinear, x: Value, y: Value) -> Result<Value, PlanError> {
        let fraction = x.fraction + y.fraction;
        let held = match (x.is_public(), y.is_public()) {
            (true, true) => {
                let (x, y) = (self.public_wire(&x)?, self.public_wire(&y)?);
                Held::Public(public_product(&mut self.builder, bilinear, x, y))
            }
            (false, true) => {
                let (x, y) = (self.shares(&x)?, self.public_wire(&y)?);
                Held::Private(product_with_public(&mut self.builder, bilinear, x, y, true))
            }
            (true, false) => {
                let (x, y) = (self.public_wire(&x)?, self.shares(&y)?);
                Held::Private(product_with_public(&mut self.builder, bilinear, y, x, false))
            }
            (false, false) => {
                let (x, y) = (self.factor(id, &x)?, self.factor(id, &y)?);
                Held::Private(product(&mut self.builder, bilinear, x, y))
            }
        };
        Ok(Value { held, fraction })
    }

    /// x · y, element by element, of two shared values of as many elements.
    pub(crate) fn times(&mut self, id: Id, x: &Value, y: &Value, elements: u32) -> Result<Value, PlanError> {
        let (x, y) = self.factors(x.clone(), y.clone())?;
        self.product(id, Bilinear::Elementwise { elements }, x, y)
    }

    /// x², element by element, of a value with at most f bits after the point.
    pub(crate) fn squared(&mut self, id: Id, x: &Value) -> Result<Value, PlanError> {
        let fraction = 2 * x.fraction;
        if x.is_public() {
            let wire = self.public_wire(x)?;
            let product = Bilinear::Elementwise { elements: self.builder.elements(&wire) };
            return Ok(Value::public(public_product(&mut self.builder, product, wire, wire), fraction));
        }
        let masked = self.masked(id, x)?;
        Ok(Value::private(square(&mut self.builder, masked), fraction))
    }

    /// Σ factor · value + constant for real factors: exact with the values' own f bits, the result at 2f.
    pub(crate) fn weighted(&mut self, terms: &[(&Value, f64)], constant: f64) -> Result<Value, PlanError> {
        let f = self.fraction();
        let mut encoded = Vec::with_capacity(terms.len());
        for (value, factor) in terms {
            encoded.push((self.at(value, f)?, self.encode(*factor, f)?));
        }
        let constant = self.encode(constant, 2 * f)?;
        self.linear(&encoded.iter().map(|(value, factor)| (value, *factor)).collect::<Vec<_>>(), constant, 2 * f)
    }

    /// Σ factor · value + constant, where the values' integers are taken as they are, and the result as having `fraction`
    /// bits after the point.
    pub(crate) fn weighted_at(
        &mut self,
        terms: &[(&Value, i64)],
        constant: f64,
        fraction: u32,
    ) -> Result<Value, PlanError> {
        let constant = self.encode(constant, fraction)?;
        self.linear(terms, constant, fraction)
    }

    /// x · factor / 2^bits, where |x| is at most 2^bits / factor: the division only moves the point.
    pub(crate) fn scaled(&mut self, x: &Value, factor: f64, bits: i32) -> Result<Value, PlanError> {
        let f = self.fraction();
        let (k, fraction) = (self.program.numbers().ring_bits as i32, (x.fraction + f) as i32 + bits);
        if fraction + 1 > k - 2 {
            return Err(PlanError::Numbers(format!(
                "a polynomial of values up to 2^{bits} needs {} bits of the ring, {k} are there; use a larger ring, fewer \
                 fraction bits, or calibrated bounds",
                fraction + 3
            )));
        }
        let factor = self.encode(factor, f)?;
        match u32::try_from(fraction) {
            Ok(fraction) => self.linear(&[(x, factor)], 0, fraction),
            // So small that it must be raised to have a point at all.
            Err(_) => self.linear(&[(x, factor << fraction.unsigned_abs().min(60))], 0, 0),
        }
    }

    /// x + y.
    pub(crate) fn sum(&mut self, x: &Value, y: &Value) -> Result<Value, PlanError> {
        let (x, y) = self.aligned(x.clone(), y.clone())?;
        self.linear(&[(&x, 1), (&y, 1)], 0, x.fraction)
    }

    /// Values of one scale, one after the other.
    pub(crate) fn joined(&mut self, values: &[Value]) -> Result<Value, PlanError> {
        let masked: Option<Vec<Masked>> = values
            .iter()
            .map(|value| match value.held {
                Held::Masked(masked) => Some(masked),
                _ => None,
            })
            .collect();
        let held = if let Some(masked) = masked {
            let (hats, masks): (Vec<_>, Vec<_>) = masked.iter().map(|masked| (masked.hat, masked.mask)).unzip();
            Held::Masked(Masked { hat: concat(&mut self.builder, &hats), mask: concat(&mut self.builder, &masks) })
        } else if values.iter().all(Value::is_public) {
            let wires = values.iter().map(|value| self.public_wire(value)).collect::<Result<Vec<_>, _>>()?;
            Held::Public(concat(&mut self.builder, &wires))
        } else {
            let wires = values.iter().map(|value| self.shares(value)).collect::<Result<Vec<_>, _>>()?;
            Held::Private(concat(&mut self.builder, &wires))
        };
        Ok(Value { held, fraction: values.first().map_or(0, |value| value.fraction) })
    }
}
