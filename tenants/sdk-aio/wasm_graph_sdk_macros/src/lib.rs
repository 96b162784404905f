//! The attributes of `wasm_graph_sdk::macros`: a function becomes the export of an
//! operator. Knows the worlds and names of `wit/wasm-graph-processor`, and of the
//! function only its name: wrong parameters are for the compiler to tell.

use proc_macro::TokenStream;
use proc_macro2::{Span, TokenStream as Code};
use quote::{format_ident, quote};
use syn::parse::Parser as _;
use syn::{Ident, ItemFn, LitStr, Path, PathSegment};

/// `fn(DataModel) -> Result<DataModel, Error>`; optionally
/// `init = "fn_name"`, a `fn(ModuleConfiguration) -> bool`.
#[proc_macro_attribute]
pub fn map_operator(attribute: TokenStream, function: TokenStream) -> TokenStream {
    operator(&MAP, attribute, function)
}

/// `fn(DataModel) -> Result<bool, Error>`, true to pass; optionally `init = "fn_name"`.
#[proc_macro_attribute]
pub fn filter_operator(attribute: TokenStream, function: TokenStream) -> TokenStream {
    operator(&FILTER, attribute, function)
}

/// `fn(HybridLogicalClock, DataModel) -> Result<bool, Error>`, true for the arm
/// `"True"`; optionally `init = "fn_name"`.
#[proc_macro_attribute]
pub fn branch_operator(attribute: TokenStream, function: TokenStream) -> TokenStream {
    operator(&BRANCH, attribute, function)
}

/// `fn(DataModel, Vec<DataModel>) -> Result<DataModel, Error>`: what is staged for a
/// time, at first a message with an empty payload, and what came; optionally
/// `init = "fn_name"`.
#[proc_macro_attribute]
pub fn accumulate_operator(attribute: TokenStream, function: TokenStream) -> TokenStream {
    operator(&ACCUMULATE, attribute, function)
}

/// `fn(DataModel, HybridLogicalClock) -> Result<HybridLogicalClock, Error>`, to a time
/// no earlier than the given one; optionally `init = "fn_name"`.
#[proc_macro_attribute]
pub fn delay_operator(attribute: TokenStream, function: TokenStream) -> TokenStream {
    operator(&DELAY, attribute, function)
}

/// The bindings of the interfaces that the host offers.
#[doc(hidden)]
#[proc_macro]
pub fn host_bindings(_: TokenStream) -> TokenStream {
    bindings("host", quote!(::wit_bindgen), "wit_bindgen::rt").into()
}

/// What differs between operators: the name of their interface, and the parameters and
/// the result of its `process`.
struct Kind {
    interface: &'static str,
    parameters: &'static [&'static str],
    result: &'static str,
}

const MAP: Kind = Kind { interface: "map", parameters: &["DataModel"], result: "DataModel" };
const FILTER: Kind = Kind { interface: "filter", parameters: &["DataModel"], result: "bool" };
const BRANCH: Kind =
    Kind { interface: "branch", parameters: &["HybridLogicalClock", "DataModel"], result: "bool" };
const ACCUMULATE: Kind =
    Kind { interface: "accumulate", parameters: &["DataModel", "Vec<DataModel>"], result: "DataModel" };
const DELAY: Kind = Kind {
    interface: "delay",
    parameters: &["DataModel", "HybridLogicalClock"],
    result: "HybridLogicalClock",
};

fn operator(kind: &Kind, attribute: TokenStream, function: TokenStream) -> TokenStream {
    match expand(kind, attribute.into(), function.into()) {
        Ok(code) => code.into(),
        Err(error) => error.into_compile_error().into(),
    }
}

/// The function as it is, and beside it a module with the bindings and the export. The
/// glob brings its types into scope, and gives way to what the author names himself.
fn expand(kind: &Kind, attribute: Code, function: Code) -> syn::Result<Code> {
    let init = init_path(attribute)?;
    let function: ItemFn = syn::parse2(function)?;
    let module = format_ident!("__{}_operator", kind.interface);
    let process = &function.sig.ident;
    let interface = format_ident!("{}", kind.interface);
    let names: Vec<Ident> = (0..kind.parameters.len()).map(|index| format_ident!("a{index}")).collect();
    let types =
        kind.parameters.iter().map(|it| syn::parse_str(it)).collect::<syn::Result<Vec<syn::Type>>>()?;
    let result: syn::Type = syn::parse_str(kind.result)?;
    let configure = match init {
        Some(path) => quote!(#path(configuration)),
        None => quote! {{
            let _ = configuration;
            true
        }},
    };
    let bindings =
        bindings(&format!("{}-impl", kind.interface), quote!(::wasm_graph_sdk::wit_bindgen), RUNTIME);
    let conversions = (kind.interface == DELAY.interface).then(durations);
    Ok(quote! {
        #function

        #[doc(hidden)]
        #[allow(dead_code, unused_imports, clippy::all)]
        mod #module {
            #bindings

            pub use self::wasm_graph::processor::hybrid_logical_clock::{HybridLogicalClock, Timespec};
            pub use self::wasm_graph::processor::types::{
                Buffer, BufferOrBytes, BufferOrString, DataModel, Error, InlineSchema, Message,
                MessageProperties, MessageSchema, ModuleConfiguration, ModuleSchema, Snapshot, Timestamp,
            };

            impl BufferOrBytes {
                /// A copy of the bytes, from the host if they are still there.
                pub fn read(&self) -> Vec<u8> {
                    match self {
                        BufferOrBytes::Buffer(buffer) => buffer.read(),
                        BufferOrBytes::Bytes(bytes) => bytes.clone(),
                    }
                }
            }

            #conversions

            struct Operator;

            impl self::exports::wasm_graph::processor::#interface::Guest for Operator {
                fn process(#(#names: #types),*) -> Result<#result, Error> {
                    super::#process(#(#names),*)
                }

                fn init(configuration: ModuleConfiguration) -> bool {
                    #configure
                }
            }

            export!(Operator);
        }
        #[allow(unused_imports)]
        use self::#module::*;
    })
}

const RUNTIME: &str = "::wasm_graph_sdk::wit_bindgen::rt";

/// The bindings of a world of the folder that lies beside this crate.
fn bindings(world: &str, wit_bindgen: Code, runtime: &str) -> Code {
    let wit = concat!(env!("CARGO_MANIFEST_DIR"), "/wit");
    quote! {
        #wit_bindgen::generate!({ path: #wit, world: #world, runtime_path: #runtime });
    }
}

/// What delays reckon with: `Duration`, to and from a clock's `Timespec`.
fn durations() -> Code {
    quote! {
        pub use ::core::time::Duration;

        impl From<Timespec> for Duration {
            fn from(time: Timespec) -> Self {
                Duration::new(time.secs, time.nanos)
            }
        }

        impl From<Duration> for Timespec {
            fn from(duration: Duration) -> Self {
                Timespec { secs: duration.as_secs(), nanos: duration.subsec_nanos() }
            }
        }
    }
}

/// `init = "path"` as a path from within the module beside the function.
fn init_path(attribute: Code) -> syn::Result<Option<Path>> {
    let mut init = None;
    let read = syn::meta::parser(|meta| {
        if !meta.path.is_ident("init") {
            return Err(meta.error("expected `init = \"fn_name\"`"));
        }
        let name: LitStr = meta.value()?.parse()?;
        let mut path: Path = name.parse()?;
        let first = path.segments.first().map(|it| it.ident.to_string());
        match first.as_deref() {
            Some("crate") => {}
            Some("self") => path.segments[0] = segment(name.span()),
            _ if path.leading_colon.is_some() => {}
            _ => path.segments.insert(0, segment(name.span())),
        }
        init = Some(path);
        Ok(())
    });
    read.parse2(attribute)?;
    Ok(init)
}

fn segment(span: Span) -> PathSegment {
    PathSegment::from(Ident::new("super", span))
}
