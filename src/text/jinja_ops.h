// What Python does with values: truth, printing, comparison, arithmetic, indexing, iteration.
// Errors go to the machine, which then holds them; the results are empty values.
#pragma once

#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "text/jinja_ast.h"
#include "text/jinja_value.h"

namespace rk::text::jinja {

bool truthy(const Value& value);
/// Appends str(value), or repr(value).
void print(Machine& machine, const Value& value, Text& out);
void print_repr(Machine& machine, const Value& value, Text& out);
/// str(value); texts as they are.
TextPtr to_text(Machine& machine, const Value& value);
std::string python_float(double value);

bool equal(Machine& machine, const Value& left, const Value& right);
/// left < right as Python orders them; an error where it does not.
bool less(Machine& machine, const Value& left, const Value& right);
bool compare(Machine& machine, Op op, const Value& left, const Value& right);
bool contains(Machine& machine, const Value& container, const Value& item);

Value arithmetic(Machine& machine, Op op, const Value& left, const Value& right);
Value negate(Machine& machine, const Value& value, bool minus);

/// Items of a list, keys of a dict, characters of a text; an error for what cannot be iterated.
std::vector<Value> iterate(Machine& machine, const Value& value);
/// Number of items, or nothing for values without a length.
std::optional<int64_t> length(const Value& value);
const Value* find_key(Machine& machine, const Dict& dict, const Value& key);
/// value.name and value[key]: Undefined where there is none.
Value get_attribute(Machine& machine, const Value& value, std::string_view name, const Value& key);
Value get_item(Machine& machine, const Value& value, const Value& key);
Value get_slice(Machine& machine, const Value& value, const Value& start, const Value& stop,
                const Value& step);

// jinja_methods.cc
bool has_method(const Value& self, std::string_view name);
Value call_method(Machine& machine, const Value& self, std::string_view name,
                  const std::vector<Value>& args, const Kwargs& kwargs);

// jinja_filters.cc, jinja_filters_lists.cc, jinja_tests.cc
Value call_filter(Machine& machine, std::string_view name, const std::vector<Value>& args,
                  const Kwargs& kwargs);
bool call_test(Machine& machine, std::string_view name, const std::vector<Value>& args);

/// An argument by position or name; null where it was not given.
const Value* argument(const std::vector<Value>& args, const Kwargs& kwargs, size_t position,
                      std::string_view name);

// jinja_json.cc
Value value_from_json(Machine& machine, std::string_view json, std::string_view what);
void print_json(Machine& machine, const Value& value, const Value* indent, bool ascii,
                bool sort_keys, Text& out);

}  // namespace rk::text::jinja
