//! Small programs, run under a protocol with their operands in every form, and compared with what `ndarray` makes of them.

#![allow(dead_code, reason = "each test crate uses a part of it")]

use ndarray::{ArrayD, IxDyn};
use selkie::graph::{Bounds, Graph, Tensor};
use selkie::program::{Numbers, Visibility, Weights};
use selkie::session::Run;
use selkie::{Blame, GraphError, PlanError, Protocol, Session};

/// A tensor in clear.
pub(crate) type Values = ArrayD<f64>;

/// The default, and the narrow ring with as many bits after the point as the command line gives it.
pub(crate) const WIDE: Numbers = Numbers { ring_bits: 64, fraction_bits: 16 };
pub(crate) const NARROW: Numbers = Numbers { ring_bits: 32, fraction_bits: 10 };

/// How an operand comes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Form {
    Constant,
    PublicVariable,
    PublicInput,
    PrivateVariable,
    PrivateInput,
    MaskedVariable,
    MaskedShares,
    MaskedInput,
}

impl Form {
    pub(crate) const ALL: &[Form] = &[
        Form::Constant,
        Form::PublicVariable,
        Form::PublicInput,
        Form::PrivateVariable,
        Form::PrivateInput,
        Form::MaskedVariable,
        Form::MaskedShares,
        Form::MaskedInput,
    ];
    /// One of each kind.
    pub(crate) const KINDS: &[Form] = &[Form::PublicInput, Form::PrivateInput, Form::MaskedInput];
    pub(crate) const PUBLIC: &[Form] = &[Form::Constant, Form::PublicVariable, Form::PublicInput];
    pub(crate) const HIDDEN: &[Form] =
        &[Form::PrivateVariable, Form::PrivateInput, Form::MaskedVariable, Form::MaskedShares, Form::MaskedInput];
    pub(crate) const MASKED: &[Form] = &[Form::MaskedVariable, Form::MaskedShares, Form::MaskedInput];

    pub(crate) fn is_public(self) -> bool {
        Self::PUBLIC.contains(&self)
    }
}

/// A tensor with these elements.
pub(crate) fn array(shape: &[usize], values: &[f64]) -> Values {
    ArrayD::from_shape_vec(IxDyn(shape), values.to_vec()).unwrap()
}

/// Multiples of a quarter in -1.5..=1.5, no two neighbours equal, different for each `salt`.
pub(crate) fn quarters(shape: &[usize], salt: usize) -> Values {
    let count: usize = shape.iter().product();
    array(shape, &(0..count).map(|i| ((i * 5 + salt * 3) % 13) as f64 / 4.0 - 1.5).collect::<Vec<_>>())
}

/// A graph under construction and what its inputs will be fed.
#[derive(Default)]
pub(crate) struct Bench {
    pub(crate) graph: Graph,
    inputs: Vec<(String, ArrayD<f32>)>,
    named: usize,
}

impl Bench {
    /// `values` in this form; `whole`: as integers without bits after the point.
    pub(crate) fn tensor(&mut self, form: Form, values: &Values, whole: bool) -> Tensor {
        self.named += 1;
        let name = format!("x{}", self.named);
        let shape: Vec<u32> = values.shape().iter().map(|n| *n as u32).collect();
        let narrow = values.mapv(|x| x as f32);
        let fold = |f: fn(f64, f64) -> f64| values.iter().copied().reduce(f).unwrap();
        let range = [fold(f64::min), fold(f64::max)];
        let mut input = |visibility| {
            self.inputs.push((name.clone(), narrow.clone()));
            self.graph.input("input-provider", &name, &shape, range, visibility, whole).unwrap()
        };
        let variable = |visibility| {
            let variable = self.graph.variable("model-provider", &name, &shape, visibility, whole).unwrap();
            self.graph.initialise(&variable, narrow.view()).unwrap();
            variable
        };
        match form {
            Form::Constant => self.graph.constant(values.view()).unwrap(),
            Form::PublicVariable => variable(Visibility::Public),
            Form::PublicInput => input(Visibility::Public),
            Form::PrivateVariable => variable(Visibility::Private),
            Form::PrivateInput => input(Visibility::Private),
            Form::MaskedVariable => variable(Visibility::Private).mask().unwrap(),
            Form::MaskedShares => input(Visibility::Private).mask().unwrap(),
            Form::MaskedInput => input(Visibility::Masked),
        }
    }

    pub(crate) fn output(&self, x: &Tensor) {
        self.graph.output("receiver", x).unwrap();
    }

    /// Compiled with proved bounds and deployed.
    pub(crate) fn session(&self, protocol: Protocol, numbers: Numbers) -> Result<Session, String> {
        let weights: Weights = self.graph.weights();
        let program = self.graph.compile(numbers, Bounds::Proved(&weights)).map_err(|error| error.to_string())?;
        Session::local(&program, &weights, protocol, [11; 32]).map_err(|error| error.to_string())
    }

    pub(crate) fn run(&self, session: &mut Session) -> Result<Run, Blame> {
        let inputs: Vec<_> = self.inputs.iter().map(|(name, values)| (name.as_str(), values.view())).collect();
        session.run(&inputs)
    }

    /// Why it cannot be planned.
    pub(crate) fn refusal(&self, protocol: Protocol, numbers: Numbers) -> PlanError {
        let weights: Weights = self.graph.weights();
        let program = match self.graph.compile(numbers, Bounds::Proved(&weights)) {
            Ok(program) => program,
            Err(error) => return error,
        };
        selkie::plan::Plan::new(&program, protocol).unwrap_err()
    }
}

/// Which protocols have an operation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Has {
    /// All of them.
    Every,
    /// Those that compare. The others know its meaning for public operands alone, and must say so when planning.
    Comparing,
}

/// How near a result must be.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Within {
    /// Equal.
    Exactly,
    /// Within so many units in the last place of the fixed point.
    Ulps(f64),
    /// Within the errors that the plan says, so many times.
    Planned(f64),
}

/// One protocol in one ring.
pub(crate) struct Try {
    pub(crate) protocol: Protocol,
    pub(crate) numbers: Numbers,
    pub(crate) has: Has,
    /// Whether operands are integers.
    pub(crate) whole: bool,
    pub(crate) checked: usize,
}

impl Try {
    /// Runs `program` under every protocol, in both rings.
    pub(crate) fn everywhere(has: Has, program: fn(&mut Try)) {
        for protocol in Protocol::ALL {
            for numbers in [WIDE, NARROW] {
                let mut one = Try { protocol: *protocol, numbers, has, whole: false, checked: 0 };
                program(&mut one);
                assert!(one.checked > 0, "nothing was checked under {protocol}");
            }
        }
    }

    /// Whether the protocol refuses this operation on what is not public.
    pub(crate) fn refuses(&self) -> bool {
        self.has == Has::Comparing && !self.protocol.compares()
    }

    /// Every form of one operand, and every mix of the forms of two; of more, of the kinds.
    pub(crate) fn check(
        &mut self,
        operands: &[Values],
        build: impl Fn(&[Tensor]) -> Result<Tensor, GraphError>,
        expected: Values,
        within: Within,
    ) {
        let forms = if operands.len() > 2 { Form::KINDS } else { Form::ALL };
        self.check_in(forms, operands, build, expected, within);
    }

    /// Every mix of these forms.
    pub(crate) fn check_in(
        &mut self,
        forms: &[Form],
        operands: &[Values],
        build: impl Fn(&[Tensor]) -> Result<Tensor, GraphError>,
        expected: Values,
        within: Within,
    ) {
        let mut mixes: Vec<Vec<Form>> = vec![vec![]];
        for _ in operands {
            let longer =
                |mix: Vec<Form>| forms.iter().map(|form| [&mix, [*form].as_slice()].concat()).collect::<Vec<_>>();
            mixes = mixes.into_iter().flat_map(longer).collect();
        }
        if self.refuses() {
            let (public, hidden): (Vec<_>, Vec<_>) =
                mixes.into_iter().partition(|mix| mix.iter().all(|form| form.is_public()));
            for mix in hidden {
                let mut bench = Bench::default();
                let tensors: Vec<_> = mix.iter().zip(operands).map(|(f, v)| bench.tensor(*f, v, self.whole)).collect();
                bench.output(&build(&tensors).unwrap());
                let error = bench.refusal(self.protocol, self.numbers);
                let PlanError::Unsupported { protocol, instead, .. } = &error else { panic!("{mix:?}: {error}") };
                assert_eq!(*protocol, self.protocol.name());
                for other in Protocol::ALL {
                    assert_eq!(instead.contains(other.name()), other.compares(), "{error}");
                    assert!(!other.compares() || error.to_string().contains(other.name()), "{error}");
                }
                self.checked += 1;
            }
            mixes = public;
        }
        if mixes.is_empty() {
            return;
        }
        // One graph for all mixes: so tensors are also used many times over.
        let mut bench = Bench::default();
        let tensors: Vec<Vec<Tensor>> = operands
            .iter()
            .map(|values| forms.iter().map(|form| bench.tensor(*form, values, self.whole)).collect())
            .collect();
        for mix in &mixes {
            let place = |form: &Form| forms.iter().position(|f| f == form).unwrap();
            let chosen: Vec<Tensor> = mix.iter().zip(&tensors).map(|(f, all)| all[place(f)].clone()).collect();
            let result = build(&chosen).unwrap();
            assert_eq!(
                result.shape().iter().map(|n| *n as usize).collect::<Vec<_>>(),
                expected.shape(),
                "the shape, of {mix:?}"
            );
            bench.output(&result);
        }
        let place = format!("{} with {:?}", self.protocol, self.numbers);
        let mut session = bench.session(self.protocol, self.numbers).unwrap_or_else(|error| panic!("{place}: {error}"));
        let ulp = 0.5f64.powi(self.numbers.fraction_bits as i32);
        let errors = session.plan().layers(1).iter().map(|layer| layer.error_bound).fold(0.0, f64::max);
        let tolerance = match within {
            Within::Exactly => 0.0,
            Within::Ulps(count) => count * ulp,
            // What is exact has no error; f32 has one.
            Within::Planned(times) => times * errors + 1e-6,
        };
        let run = bench.run(&mut session).unwrap();
        assert_eq!(run.outputs.len(), mixes.len());
        for (mix, (_, got)) in mixes.iter().zip(&run.outputs) {
            assert_eq!(got.shape(), expected.shape(), "{place}: {mix:?}");
            for (got, wanted) in got.iter().zip(&expected) {
                let off = (f64::from(*got) - wanted).abs();
                assert!(off <= tolerance, "{place}: {mix:?}: {got}, not {wanted}; {off} > {tolerance}");
            }
            self.checked += 1;
        }
        let cost = session.plan().cost(1);
        let measured = &run.statistics;
        assert_eq!(
            (measured.rounds, measured.online_bytes, measured.offline_bytes, measured.client_bytes),
            (cost.rounds, cost.online_bytes, cost.offline_bytes, cost.client_bytes),
            "{place}: as planned"
        );
    }
}
