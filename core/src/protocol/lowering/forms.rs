//! How values are held, and with how many bits after the point: from one form to another.

use super::*;

impl Lowering<'_> {
    /// A number with so many bits after the point, to the nearest.
    pub(crate) fn encode(&self, x: f64, fraction: u32) -> Result<i64, PlanError> {
        let (k, scaled) = (self.program.numbers().ring_bits, libm::rint(x * power_of_two(fraction as i32)));
        if scaled.abs() < power_of_two(k as i32 - 2) {
            return Ok(scaled as i64);
        }
        Err(PlanError::Numbers(format!(
            "the constant {x} with {fraction} bits after the point does not fit a ring of {k} bits"
        )))
    }

    /// The fewest bits after the point, at most f, with which these numbers are exact; f, if none are enough.
    pub(super) fn exact_fraction(&self, values: &[f64]) -> u32 {
        let exact = |bits: &u32| {
            values.iter().all(|x| x * power_of_two(*bits as i32) == libm::rint(x * power_of_two(*bits as i32)))
        };
        (0..self.fraction()).find(exact).unwrap_or(self.fraction())
    }

    /// The fewest bits after the point that a constant wants; `None` for what is no constant.
    pub(super) fn least_fraction(&self, value: &Value) -> Option<u32> {
        match &value.held {
            Held::Constant(values) => Some(self.exact_fraction(values)),
            _ => None,
        }
    }

    /// A constant on a wire.
    pub(super) fn constant_wire<K: Linear>(&mut self, values: &[f64], fraction: u32) -> Result<Wire<K>, PlanError> {
        let encoded = values.iter().map(|x| self.encode(*x, fraction)).collect::<Result<_, _>>()?;
        Ok(constant(&mut self.builder, encoded))
    }

    /// Fixes the scale of a variable that is given now.
    pub(super) fn scale_variable(&mut self, index: u32, fraction: u32) {
        if let Some(scaled) = self.scaled.get_mut(index as usize).filter(|scaled| !**scaled) {
            *scaled = true;
            self.variables.iter_mut().skip(index as usize).take(1).for_each(|v| v.fraction_bits = fraction);
        }
    }

    /// The fraction of `value` once it stands beside one of `other` bits, which come down to 2f if they are more.
    pub(super) fn beside(&mut self, value: &mut Value, other: u32) {
        let other = other.min(2 * self.fraction());
        if let Held::Variable { index, .. } = value.held {
            let open = self.scaled.get(index as usize).is_some_and(|scaled| !scaled);
            if open {
                self.scale_variable(index, other);
                value.fraction = other;
            }
        }
    }

    /// Shares of `value`.
    pub(crate) fn shares(&mut self, value: &Value) -> Result<Wire<Additive>, PlanError> {
        Ok(match &value.held {
            Held::Private(wire) => *wire,
            Held::Masked(masked) => unmask(&mut self.builder, *masked),
            Held::Public(wire) => lift(&mut self.builder, *wire),
            Held::Constant(values) => self.constant_wire(values, value.fraction)?,
            Held::Variable { index, places } => {
                self.scale_variable(*index, value.fraction);
                let elements = self.variables.get(*index as usize).map_or(0, |variable| variable.elements);
                let wire = load(&mut self.builder, *index, elements);
                match places {
                    Some(places) => gather(&mut self.builder, wire, places.to_vec()),
                    None => wire,
                }
            }
        })
    }

    /// A public value on a wire.
    pub(super) fn public_wire(&mut self, value: &Value) -> Result<Wire<Common>, PlanError> {
        match &value.held {
            Held::Public(wire) => Ok(*wire),
            Held::Constant(values) => self.constant_wire(values, value.fraction),
            _ => Err(broken("a private value where a public one belongs")),
        }
    }

    /// A variable that is opened under its mask when it is set up.
    pub(super) fn open_variable(&mut self, id: Id, index: u32) -> Result<u32, PlanError> {
        self.scale_variable(index, self.fraction());
        let variable = self.variables.get_mut(index as usize).ok_or_else(|| broken("no such variable"))?;
        if !variable.masked {
            variable.masked = true;
            let step = Step::from(OpenWeights { variable: index, elements: variable.elements });
            self.setup.push(Placed { step, level: 1, layer: id });
        }
        Ok(variable.elements)
    }

    /// `value` under a mask.
    pub(crate) fn masked(&mut self, id: Id, value: &Value) -> Result<Masked, PlanError> {
        let arrange = |b: &mut Builder, masked: Masked, places: &[u32]| Masked {
            hat: gather(b, masked.hat, places.to_vec()),
            mask: gather(b, masked.mask, places.to_vec()),
        };
        match &value.held {
            Held::Masked(masked) => Ok(*masked),
            Held::Variable { index, places } => {
                let elements = self.open_variable(id, *index)?;
                let masked = load_masked(&mut self.builder, *index, elements);
                Ok(match places {
                    Some(places) => arrange(&mut self.builder, masked, places),
                    None => masked,
                })
            }
            _ => {
                let wire = self.shares(value)?;
                if let Some(masked) = self.builder.masked(wire) {
                    return Ok(masked);
                }
                match self.arranged_from(wire) {
                    Some((source, places)) => {
                        let source = self.masked(id, &Value::private(source, value.fraction))?;
                        let masked = arrange(&mut self.builder, source, &places);
                        self.builder.remember_masked(wire, masked);
                        Ok(masked)
                    }
                    _ => Ok(mask(&mut self.builder, wire)),
                }
            }
        }
    }

    /// `value` as the factor of a product.
    pub(super) fn factor(&mut self, id: Id, value: &Value) -> Result<Factor, PlanError> {
        match &value.held {
            Held::Variable { index, places: None } => {
                self.open_variable(id, *index)?;
                Ok(Factor::Variable(*index))
            }
            _ => Ok(Factor::Wires(self.masked(id, value)?)),
        }
    }

    /// `value` with exactly `fraction` bits after the point.
    pub(crate) fn at(&mut self, value: &Value, fraction: u32) -> Result<Value, PlanError> {
        if value.fraction == fraction || matches!(value.held, Held::Constant(_)) {
            return Ok(Value { held: value.held.clone(), fraction });
        }
        if value.fraction < fraction {
            let factor = 1i64 << (fraction - value.fraction);
            return self.linear(&[(value, factor)], 0, fraction);
        }
        let by = value.fraction - fraction;
        if let Held::Public(wire) = value.held {
            return Ok(Value::public(public(&mut self.builder, PublicOp::Truncate { by }, wire), fraction));
        }
        let wire = self.shares(value)?;
        Ok(Value::private(self.truncated(wire, by), fraction))
    }

    pub(super) fn truncated(&mut self, wire: Wire<Additive>, by: u32) -> Wire<Additive> {
        if let Some(known) = self.truncated.get(&(wire.id(), by)) {
            return *known;
        }
        let out = match (self.arranged_from(wire), self.selected(wire)) {
            (Some((source, places)), _) => {
                let source = self.truncated(source, by);
                self.arrange_wire(source, places)
            }
            // What is open already is truncated for less.
            (None, Some(selected)) if self.builder.masked(wire).is_none() => self.select(selected, by),
            _ if self.variant.truncation == Truncation::Local => {
                let k = self.program.numbers().ring_bits as i32;
                let bits = self.magnitudes.get(&wire.id()).copied().unwrap_or(k - 2).min(k - 2);
                self.failures += f64::from(self.builder.elements(&wire)) * power_of_two(bits - k);
                truncate_local(&mut self.builder, wire, by)
            }
            _ => truncate(&mut self.builder, wire, by),
        };
        self.truncated.insert((wire.id(), by), out);
        out
    }

    /// The wire and the places from which `wire` was arranged, if it has no fewer elements.
    pub(crate) fn arranged_from(&self, wire: Wire<Additive>) -> Option<(Wire<Additive>, Rc<Vec<u32>>)> {
        let (source, places) = self.arranged.get(&wire.id())?;
        (self.builder.elements(source) <= self.builder.elements(&wire)).then(|| (*source, Rc::clone(places)))
    }

    /// The elements of `wire` at `places`.
    pub(crate) fn arrange_wire(&mut self, wire: Wire<Additive>, places: Rc<Vec<u32>>) -> Wire<Additive> {
        let out = gather(&mut self.builder, wire, places.to_vec());
        self.arranged.insert(out.id(), (wire, places));
        out
    }

    /// What `wire` was selected from, if it was.
    pub(crate) fn selected(&self, wire: Wire<Additive>) -> Option<Selected> {
        self.selected.get(&wire.id()).copied()
    }

    /// What `selected` says, divided by 2^by.
    pub(crate) fn select(&mut self, selected: Selected, by: u32) -> Wire<Additive> {
        let out = match selected {
            Selected::Kept { bit, z } => select_masked(&mut self.builder, bit, z, by),
            Selected::Winner { comparisons, z, .. } => select_winner(&mut self.builder, comparisons, z, by),
        };
        if by == 0 {
            self.selected.insert(out.id(), selected);
        }
        out
    }
}
