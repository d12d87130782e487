// Filters of lists, for the table in jinja_filters.cc. args[0] is what stands before the bar.
#pragma once

#include <vector>

#include "text/jinja_value.h"

namespace rk::text::jinja {

#define RK_FILTER(name) \
  Value name(Machine& machine, const std::vector<Value>& args, const Kwargs& kwargs)
RK_FILTER(filter_join);
RK_FILTER(filter_list);
RK_FILTER(filter_items);
RK_FILTER(filter_first);
RK_FILTER(filter_last);
RK_FILTER(filter_reverse);
RK_FILTER(filter_sort);
RK_FILTER(filter_dictsort);
RK_FILTER(filter_unique);
RK_FILTER(filter_min);
RK_FILTER(filter_max);
RK_FILTER(filter_sum);
RK_FILTER(filter_map);
RK_FILTER(filter_select);
RK_FILTER(filter_reject);
RK_FILTER(filter_selectattr);
RK_FILTER(filter_rejectattr);
#undef RK_FILTER

}  // namespace rk::text::jinja
