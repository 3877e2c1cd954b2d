//! Whoever knows TF Encrypted 0.4 finds everything here: a row for each of its names, what it is here, and a test that runs
//! it under every protocol that has it, on operands in every form and mix.
//!
//! The same rows are the page `core/docs/vocabulary.md`. After a change to them, write it anew:
//! `SELKIE_WRITE_VOCABULARY=1 cargo test -p selkie --test vocabulary`.

#![allow(clippy::unwrap_used, clippy::indexing_slicing, clippy::panic, reason = "a failed test may panic")]

mod lab;
mod programs;

use lab::{Has, Try};

/// Where a name is tested.
#[derive(Clone, Copy)]
enum Test {
    /// In this crate, by a program of this name.
    Here(&'static str),
    /// Elsewhere, under these protocols.
    There(&'static str, &'static str),
    /// Not carried over, for the reason that the row gives.
    Nowhere,
}
use Test::{Here, Nowhere, There};

/// A name of the original, what it is here, and its test.
type Row = (&'static str, &'static str, Test);

macro_rules! tests {
    ($($name:ident: $has:ident),* $(,)?) => {
        /// Every test of this crate, and which protocols have what it runs.
        const TESTS: &[(&str, Has)] = &[$((stringify!($name), Has::$has)),*];
        $(#[test]
        fn $name() {
            Try::everywhere(Has::$has, programs::$name);
        })*
    };
}

tests! {
    protocols_by_name: Every,
    any_players: Every,
    a_session_runs: Every,
    used_twice_is_opened_once: Every,
    constants: Every,
    public_variables: Every,
    private_variables: Every,
    public_inputs: Every,
    private_inputs: Every,
    masked_inputs: Every,
    outputs: Every,
    reveals: Every,
    masks: Every,
    caches: Every,
    caches_follow_assignments: Every,
    assignments: Every,
    what_is_fed_is_kept: Every,
    numbers_on_either_side: Every,
    integers: Every,
    rings: Every,
    encodings: Every,
    addition: Every,
    subtraction: Every,
    multiplication: Every,
    products_of_matrices: Every,
    squares: Every,
    convolutions: Every,
    sums: Every,
    running_sums: Every,
    transposes: Every,
    reshapes: Every,
    new_axes: Every,
    squeezes: Every,
    slices: Every,
    splits: Every,
    stacks: Every,
    concatenations: Every,
    paddings: Every,
    zeros: Every,
    batches_to_space: Every,
    spaces_to_batch: Every,
    average_pooling: Every,
    equality: Comparing,
    sigmoids: Every,
    relus: Every,
    tanhs: Every,
    functions: Every,
    truncations: Every,
    bit_operations: Every,
    signs: Comparing,
    lowest_bits: Comparing,
    all_bits: Comparing,
    comparisons: Comparing,
    selections: Every,
    zero_tests: Comparing,
    max_pooling: Comparing,
    larger_and_smaller: Comparing,
    maxima: Comparing,
    argmaxima: Comparing,
    polynomials: Every,
    divisions: Every,
    divisions_by_public_tensors: Every,
    negations: Every,
    magnitudes: Every,
    means: Every,
    gathers_and_tiles: Every,
    other_convolutions: Every,
}

const SECTIONS: &[(&str, &[Row])] = &[
    (
        "Globals",
        &[
            (
                "set_protocol",
                "one word: `Protocol`, given to `Session::local` or `Plan::new`, `--protocol` on the command line",
                Here("protocols_by_name"),
            ),
            ("get_protocol", "`Plan::protocol`", Here("protocols_by_name")),
            ("with Protocol()", "nothing global is set: a program runs under any protocol", Here("protocols_by_name")),
            (
                "set_config",
                "nothing global is set: players stand in the program, their addresses in `cluster.toml`",
                Here("any_players"),
            ),
            (
                "get_config",
                "`Program::inputs`, `Program::variables` and `Program::outputs` say who takes part",
                Here("any_players"),
            ),
            ("player", "a name: `graph.private_input(\"hospital-a\", …)`", Here("any_players")),
            (
                "LocalConfig's default players",
                "`input-provider` and `model-provider` are names like others; the parties are `Role`",
                Here("any_players"),
            ),
            ("Session", "`Session::local`", Here("a_session_runs")),
            (
                "global_variables_initializer, prot.initializer",
                "values are shared at deployment; `graph.initialise`, `layers::Initialiser`",
                Here("private_variables"),
            ),
            (
                "global_caches_updater",
                "none is needed: what depends on an assigned variable is opened anew, under fresh masks, by whoever runs next",
                Here("caches_follow_assignments"),
            ),
            (
                "convert, Converter",
                "`selkie_server::onnx`: `selkie deploy MODEL.onnx`",
                There("server/src/onnx/tests.rs", "all"),
            ),
            ("layers", "`selkie::layers`", There("core/src/layers", "all")),
            (
                "memoised operations",
                "a tensor is masked, truncated and opened once, however often it is used",
                Here("used_twice_is_opened_once"),
            ),
        ],
    ),
    (
        "Definitions",
        &[
            ("define_constant", "`graph.constant(array)`, `graph.number(2.0)`", Here("constants")),
            (
                "define_public_variable",
                "`graph.public_variable(player, name, shape)` and `graph.initialise`",
                Here("public_variables"),
            ),
            (
                "define_private_variable",
                "`graph.private_variable(player, name, shape)` and `graph.initialise`",
                Here("private_variables"),
            ),
            (".share0, .share1", "`Session::shares_of(name)`: in this process only", Here("private_variables")),
            (
                "define_public_placeholder",
                "`graph.public_input(player, name, shape, range)`, fed by name",
                Here("public_inputs"),
            ),
            (
                "define_private_placeholder",
                "`graph.private_input(player, name, shape, range)`: shared by the player, nobody else",
                Here("private_inputs"),
            ),
            (
                "feed_from_native",
                "`session.run(&[(name, array)])`; what is to be kept is assigned to a variable",
                Here("what_is_fed_is_kept"),
            ),
            (
                "define_public_input",
                "`graph.public_input(player, …)`; both servers compare what they were sent",
                Here("public_inputs"),
            ),
            ("define_private_input", "`graph.private_input(player, …)`", Here("private_inputs")),
            (
                "define_private_input(masked=True)",
                "`graph.masked_input(player, …)`; the crypto producer receives nothing from the player",
                Here("masked_inputs"),
            ),
            ("define_output", "`graph.output(player, &x)`, public tensors too", Here("outputs")),
            ("assign", "`graph.kept_variable(player, …)`, `graph.assign(&variable, &x)`", Here("assignments")),
            ("tag=", "`graph.entry(name)`, `session.call(name, …)`", Here("assignments")),
            ("reveal", "`x.reveal()`", Here("reveals")),
            ("mask", "`x.mask()`", Here("masks")),
            (
                "cache",
                "variables that products take are opened once, under a mask of their version and epoch, and never again",
                Here("caches"),
            ),
            ("lift", "numbers stand on either side of operators", Here("numbers_on_either_side")),
            (
                "apply_scaling=False",
                "`whole`: integers, without bits after the point; `graph.input(…, whole)`, `graph.variable(…, whole)`",
                Here("integers"),
            ),
            (
                "name=",
                "inputs and variables have names, unlike all others; operations have numbers",
                Here("a_session_runs"),
            ),
            ("factory=", "`Numbers::ring_bits`, one for a program", Here("rings")),
        ],
    ),
    (
        "Kinds of tensors",
        &[
            ("PondPublicTensor", "`Visibility::Public`", Here("public_inputs")),
            ("PondPrivateTensor", "`Visibility::Private`", Here("private_inputs")),
            ("PondMaskedTensor", "`Visibility::Masked`", Here("masks")),
            ("PondConstant", "`graph.constant`", Here("constants")),
            (
                "PondPublicPlaceholder, PondPrivatePlaceholder",
                "`graph.public_input`, `graph.private_input`",
                Here("private_inputs"),
            ),
            ("PondPublicVariable", "`graph.public_variable`", Here("public_variables")),
            ("PondPrivateVariable", "`graph.private_variable`", Here("private_variables")),
            (
                "PondCachedPublicTensor, PondCachedPrivateTensor, PondCachedMaskedTensor",
                "`graph.kept_variable`: values kept from run to run",
                Here("what_is_fed_is_kept"),
            ),
            ("is_scaled", "`x.is_whole()`, the opposite", Here("integers")),
            (".reveal()", "`x.reveal()`", Here("reveals")),
            (".decode()", "outputs arrive decoded", Here("encodings")),
            (".unwrapped", "`Session::shares_of`", Here("private_variables")),
            (".shape", "`x.shape()`, one sample's", Here("reshapes")),
            ("x[…]", "`x.slice(&[(0..2).into(), …])`", Here("slices")),
            ("x + y, x - y, x * y", "`&x + &y`, `&x - &y`, `&x * &y`: each a `Result`", Here("numbers_on_either_side")),
        ],
    ),
    (
        "Pond's operations",
        &[
            ("add", "`x.add(&y)`, `&x + &y`, `1.0 + &x`; all mixes, also of scales", Here("addition")),
            ("sub", "`x.sub(&y)`, `&x - &y`, `1.0 - &x`; all mixes", Here("subtraction")),
            ("mul", "`x.mul(&y)`, `&x * &y`, `2.0 * &x`; all mixes", Here("multiplication")),
            ("matmul", "`x.matmul(&y)`, batches too; all mixes", Here("products_of_matrices")),
            ("dot", "`x.matmul(&y)`", Here("products_of_matrices")),
            ("square", "`x.square()`; `&x * &x` is one", Here("squares")),
            (
                "conv2d",
                "`x.conv2d(&filters, Convolution { … })`: filters \\[out, in, height, width\\]; all mixes",
                Here("convolutions"),
            ),
            ("reduce_sum", "`x.reduce_sum(axis)`", Here("sums")),
            ("sum", "`x.reduce_sum(axis)`", Here("sums")),
            ("cumsum", "`x.cumsum(axis)`", Here("running_sums")),
            ("transpose", "`x.transpose(&[1, 0])`", Here("transposes")),
            ("reshape", "`x.reshape(&[2, 3])`", Here("reshapes")),
            ("expand_dims", "`x.expand_dims(axis)`", Here("new_axes")),
            ("squeeze", "`x.squeeze(&[axis])`, `x.squeeze(&[])`", Here("squeezes")),
            ("strided_slice", "`x.slice(&[Along::from(0..4).step(2), …])`", Here("slices")),
            ("indexer", "`x.slice(&[…])`", Here("slices")),
            ("split", "`x.split(parts, axis)`", Here("splits")),
            ("stack", "`Tensor::stack(&[&x, &y], axis)`; all mixes", Here("stacks")),
            ("concat", "`Tensor::concat(&[&x, &y], axis)`; all mixes", Here("concatenations")),
            ("pad", "`x.pad(&[[before, after], …])`", Here("paddings")),
            ("zeros", "`graph.constant(Array::zeros(…))`, which any operand may be combined with", Here("zeros")),
            ("batch_to_space_nd", "`x.batch_to_space(&blocks, &crops)`", Here("batches_to_space")),
            ("space_to_batch_nd", "`x.space_to_batch(&blocks, &padding)`", Here("spaces_to_batch")),
            (
                "avgpool2d",
                "`x.avg_pool2d(Pooling { … })`, SAME counted as TensorFlow counts it",
                Here("average_pooling"),
            ),
            ("equal", "`x.equal(&y)`; of public operands everywhere", Here("equality")),
            ("sigmoid", "`x.sigmoid()`, within the error that the plan says", Here("sigmoids")),
            (
                "relu",
                "`x.relu()`, exact where the protocol compares, else within the error that the plan says",
                Here("relus"),
            ),
            ("tanh", "`x.tanh()`, within the error that the plan says", Here("tanhs")),
            (
                "no other functions",
                "`x.function([-8.0, 8.0], |x| …)`: any function of one variable, within the error that the plan says",
                Here("functions"),
            ),
            ("truncate", "the plan truncates, where a product needs it", Here("truncations")),
            ("im2col", "a kernel's own affair: `x.conv2d(…)`", Here("convolutions")),
        ],
    ),
    (
        "SecureNN's operations",
        &[
            ("bitwise_not", "`x.not()`", Here("bit_operations")),
            ("bitwise_and", "`x.and(&y)`", Here("bit_operations")),
            ("bitwise_or", "`x.or(&y)`", Here("bit_operations")),
            ("bitwise_xor", "`x.xor(&y)`", Here("bit_operations")),
            ("msb", "`x.msb()`", Here("signs")),
            ("lsb", "`x.lsb()`, of whole tensors", Here("lowest_bits")),
            ("bits", "`x.bits(count)`, of whole tensors", Here("all_bits")),
            ("negative", "`x.negative()`: x < 0; the number -x is `-&x`", Here("signs")),
            ("non_negative", "`x.non_negative()`", Here("signs")),
            ("less", "`x.less(&y)`", Here("comparisons")),
            ("less_equal", "`x.less_equal(&y)`", Here("comparisons")),
            ("greater", "`x.greater(&y)`", Here("comparisons")),
            ("greater_equal", "`x.greater_equal(&y)`", Here("comparisons")),
            ("select", "`bit.select(&x, &y)`: x where the bit is 0", Here("selections")),
            ("equal_zero", "`x.equal_zero()`", Here("zero_tests")),
            ("relu (exact)", "`x.relu()`", Here("relus")),
            ("maxpool2d", "`x.max_pool2d(Pooling { … })`", Here("max_pooling")),
            ("maximum", "`x.maximum(&y)`, and `x.minimum(&y)`", Here("larger_and_smaller")),
            ("reduce_max", "`x.reduce_max(axis)`", Here("maxima")),
            ("argmax", "`x.argmax(axis)`, the lowest index on ties", Here("argmaxima")),
            (
                "cast_backing",
                "inside comparisons: SecureNN's ShareConvert",
                There("core/src/gates/share_convert.rs", "securenn"),
            ),
        ],
    ),
    (
        "Rings and fixed point",
        &[
            ("int64", "`Numbers { ring_bits: 64, … }`, the default", Here("rings")),
            ("int32", "`Numbers { ring_bits: 32, … }`", Here("rings")),
            ("int100", "rings have up to 64 bits; bounds are proved or calibrated, and checked when planning", Nowhere),
            (
                "PrimeFactory, OddImplicit",
                "SecureNN's own field and odd ring, inside its comparisons",
                There("core/src/gates/private_compare.rs, core/src/gates/share_convert.rs", "securenn"),
            ),
            (
                "fixed64, fixed100",
                "`Numbers { fraction_bits: 16, … }`, any number of bits; encoding rounds half to even",
                Here("encodings"),
            ),
            ("fixed64_ni, fixed100_ni", "truncation is assisted by the crypto producer, and never fails", Nowhere),
            (
                "interactive truncation",
                "assisted by the crypto producer, with one opening and any ring",
                Here("truncations"),
            ),
            (
                "triples",
                "one for each product, all but one piece from seeds; squares have cheaper ones",
                Here("squares"),
            ),
            (
                "polynomials",
                "`x.polynomial(&coefficients)`; Pond's activations are fitted to the operand's bound",
                Here("polynomials"),
            ),
        ],
    ),
    (
        "Layers",
        &[
            ("Dense", "`layers::Dense`", There("core/src/layers/dense.rs", "all")),
            ("Conv2D", "`layers::Conv2D`", There("core/src/layers/conv2d.rs", "all")),
            ("AveragePooling2D", "`layers::AveragePooling2D`", There("core/src/layers/pooling.rs", "all")),
            ("MaxPooling2D", "`layers::MaxPooling2D`", There("core/src/layers/pooling.rs", "comparing")),
            ("Batchnorm", "`layers::Batchnorm`, its parameters private", There("core/src/layers/batchnorm.rs", "all")),
            ("Sigmoid", "`layers::Sigmoid`", There("core/src/layers/activation.rs", "all")),
            ("Relu", "`layers::Relu`", There("core/src/layers/activation.rs", "all")),
            ("Tanh", "`layers::Tanh`", There("core/src/layers/activation.rs", "all")),
            ("Reshape", "`layers::Reshape`", There("core/src/layers/shape.rs", "all")),
            ("Flatten", "`layers::Flatten`", There("core/src/layers/shape.rs", "all")),
            (
                "initialize()",
                "values are given, or drawn, where a layer is made",
                There("core/src/layers/initialise.rs", "all"),
            ),
            ("forward()", "`Layer::forward`", There("core/src/layers", "all")),
            ("backward()", "`Layer::input_gradient` and `Layer::parameter_gradients`", There("core/src/layers", "all")),
        ],
    ),
    (
        "Absent in 0.4",
        &[
            ("division", "`x.div(3.0)`", Here("divisions")),
            ("division by a public tensor", "`x.div_public(&y, least)`", Here("divisions_by_public_tensors")),
            ("public negative", "`-&x`, `x.neg()`", Here("negations")),
            ("private equality", "`x.equal(&y)`", Here("equality")),
            ("abs", "`x.abs()`", Here("magnitudes")),
            ("reduce_mean", "`x.reduce_mean(axis)`", Here("means")),
            ("gather, tile", "`x.gather(&indices, axis)`, `x.tile(&times)`", Here("gathers_and_tiles")),
            ("dilated and depthwise conv2d", "`Convolution { dilations, groups, … }`", Here("other_convolutions")),
        ],
    ),
];

/// The page that the rows make.
fn page() -> String {
    let mut page = String::from(
        "The vocabulary of TF Encrypted 0.4, and what each word is here.\n\
         \n\
         *Protocols*: all, or those that compare, which is every protocol but Pond; Pond refuses when planning, and says which \
         protocols can. What compares works on public operands under every protocol. *Tests* without a path are those of \
         `core/tests/vocabulary.rs`: each runs under every protocol that has the operation, in rings of 64 and of 32 bits, on \
         public, private and masked operands in every mix.\n",
    );
    for (section, rows) in SECTIONS {
        page += &format!("\n# {section}\n\n| TF Encrypted | here | protocols | test |\n|---|---|---|---|\n");
        for (original, here, test) in *rows {
            let (protocols, test) = match test {
                Here(name) => match TESTS.iter().find(|(test, _)| test == name) {
                    Some((_, Has::Every)) => ("all", format!("`{name}`")),
                    Some((_, Has::Comparing)) => ("comparing", format!("`{name}`")),
                    None => panic!("{original}: there is no test {name}"),
                },
                There(place, protocols) => {
                    (*protocols, place.split(", ").map(|p| format!("`{p}`")).collect::<Vec<_>>().join(", "))
                }
                Nowhere => ("", "not carried over".into()),
            };
            let names: Vec<String> = original.split(", ").map(|name| format!("`{name}`")).collect();
            page += &format!("| {} | {here} | {protocols} | {test} |\n", names.join(", "));
        }
    }
    page
}

#[test]
fn the_page_is_what_the_rows_say() {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/docs/vocabulary.md");
    if std::env::var_os("SELKIE_WRITE_VOCABULARY").is_some() {
        std::fs::write(path, page()).unwrap();
    }
    let written = std::fs::read_to_string(path).unwrap_or_default();
    assert!(
        written == page(),
        "{path} is not what the rows say; run SELKIE_WRITE_VOCABULARY=1 cargo test -p selkie --test vocabulary"
    );
}

#[test]
fn every_test_has_a_row_and_every_name_one() {
    let rows = || SECTIONS.iter().flat_map(|(section, rows)| rows.iter().map(move |row| (section, row)));
    for (test, _) in TESTS {
        assert!(rows().any(|(_, (_, _, at))| matches!(at, Here(name) if name == test)), "{test} has no row");
    }
    let mut names: Vec<_> = rows().map(|(section, (original, ..))| (section, original)).collect();
    names.sort_unstable();
    let count = names.len();
    names.dedup();
    assert_eq!(names.len(), count);
    let workspace = concat!(env!("CARGO_MANIFEST_DIR"), "/../");
    for (_, (original, _, at)) in rows() {
        // The layers are a module that comes by itself.
        if let There(places, _) = at {
            for place in places.split(", ").filter(|place| !place.starts_with("core/src/layers")) {
                assert!(std::path::Path::new(workspace).join(place).exists(), "{original}: {place}");
            }
        }
    }
}
