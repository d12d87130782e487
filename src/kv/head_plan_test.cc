#include "kv/head_plan.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cstdio>
#include <filesystem>
#include <fstream>

namespace rk::kv {
namespace {

using testing::HasSubstr;

constexpr KvShape kShape{.num_layers = 2, .num_kv_heads = 4, .head_dim = 64};

// The example of the reference's schema (spec B 1.2), with holes to put bad values in.
std::string reference(std::string classes = R"(["local","local","local","global"])",
                      std::string distances = "[512,512,512,-1]",
                      std::string sinks = R"(,"kv_head_sink_size":[[4,4,4,4],[8,4,4,4]])",
                      std::string more = "") {
  return R"({"model":"any","window":99,"num_layers":2,"num_kv_heads":4,"retrieval_top_p":0.8)" +
         more + R"(,"kv_head_classification":[)" + classes +
         R"(,["global","local","retrieval","local_full"]],"kv_head_max_distance":[)" + distances +
         R"(,[-1,256,-1,-1]])" + sinks + "}";
}

std::string ours(std::string first_class = R"("local")", std::string first_window = "16",
                 std::string first_sink = "4", std::string more = "") {
  return R"({"format":"redknot.head_plan","version":1,"num_layers":1,"num_kv_heads":2)" + more +
         R"(,"classes":[[)" + first_class + R"(,"global"]],"windows":[[)" + first_window +
         R"(,-1]],"sinks":[[)" + first_sink + ",0]]}";
}
constexpr KvShape kSmall{.num_layers = 1, .num_kv_heads = 2, .head_dim = 64};

Status parse_error(const std::string& text, const KvShape& shape, std::string_view model = "") {
  const Result<HeadPlan> plan = HeadPlan::parse(text, "plan.json", shape, model);
  EXPECT_FALSE(plan.ok()) << text;
  EXPECT_THAT(plan.status().message(), HasSubstr("plan.json")) << text;
  return plan.status();
}

TEST(HeadPlan, ReadsTheReferencesFiles) {
  const HeadPlan plan = HeadPlan::parse(reference(), "x", kShape).value();
  EXPECT_EQ(plan.at(0, 0), (HeadPolicy{HeadClass::kLocal, 512, 4}));
  EXPECT_EQ(plan.at(0, 3), (HeadPolicy{HeadClass::kGlobal, -1, 0}));
  EXPECT_EQ(plan.at(1, 1), (HeadPolicy{HeadClass::kLocal, 256, 4}));
  EXPECT_EQ(plan.at(1, 2).cls, HeadClass::kRetrieval);
  EXPECT_EQ(plan.at(1, 3), (HeadPolicy{HeadClass::kLocal, 512, 4}));  // legacy name, no distance
  EXPECT_EQ(plan.retrieval_top_p(), 0.8);
  EXPECT_EQ(plan.count(HeadClass::kLocal), 5);
  EXPECT_FALSE(plan.all_global());
}

TEST(HeadPlan, ReferenceDefaultsAndLegacyNames) {
  const HeadPlan plan =
      HeadPlan::parse(reference(R"(["limited","streaming","sink_dominant","dense"])", "[1,2.0,0,7]",
                                "", R"(,"dense_prefix_layers":0)"),
                      "x", kShape)
          .value();
  EXPECT_EQ(plan.at(0, 0), (HeadPolicy{HeadClass::kLocal, 1, 4}));
  EXPECT_EQ(plan.at(0, 1).window, 2);
  EXPECT_EQ(plan.at(0, 2).window, 512);
  EXPECT_EQ(plan.at(0, 3), (HeadPolicy{HeadClass::kDense, -1, 0}));
}

TEST(HeadPlan, DensePrefixLayersOverrideTheirClasses) {
  const auto with = [](const char* n) {
    return reference(R"(["local","local","local","global"])", "[512,512,512,-1]", "",
                     std::string(R"(,"dense_prefix_layers":)") + n);
  };
  const HeadPlan plan = HeadPlan::parse(with("1"), "x", kShape).value();
  for (int h = 0; h < 4; ++h) EXPECT_EQ(plan.at(0, h).cls, HeadClass::kDense);
  EXPECT_EQ(plan.at(1, 1).cls, HeadClass::kLocal);
  EXPECT_TRUE(HeadPlan::parse(with("2"), "x", kShape)->all_global());
  for (const char* bad : {"3", "-1", "1.5", "NaN", "\"1\"", "true"}) {
    EXPECT_THAT(parse_error(with(bad), kShape).message(), HasSubstr("dense_prefix_layers"));
  }
}

TEST(HeadPlan, RoundTripsThroughOurFormat) {
  const HeadPlan plan = HeadPlan::parse(reference(), "x", kShape).value();
  const HeadPlan again = HeadPlan::parse(plan.to_json(), "y", kShape).value();
  EXPECT_EQ(again.to_json(), plan.to_json());
  EXPECT_EQ(again.digest(), plan.digest());
  EXPECT_EQ(plan.digest().size(), 64U);
}

TEST(HeadPlan, DigestTellsPlansApart) {
  const auto digest = [](HeadPolicy a, HeadPolicy b) {
    return HeadPlan::from_policies(1, 2, {a, b})->digest();
  };
  const HeadPolicy local{HeadClass::kLocal, 16, 4}, wide{HeadClass::kLocal, 17, 4},
      sinks{HeadClass::kLocal, 16, 5}, global{};
  EXPECT_NE(digest(local, global), digest(global, local));
  EXPECT_NE(digest(local, global), digest(wide, global));
  EXPECT_NE(digest(local, global), digest(sinks, global));
  EXPECT_EQ(digest(global, global), HeadPlan::all_global(1, 2).digest());
  EXPECT_EQ(digest(global, {HeadClass::kGlobal, 77, 9}), digest(global, global));
  EXPECT_NE(HeadPlan::all_global(2, 1).digest(), HeadPlan::all_global(1, 2).digest());
}

TEST(HeadPlan, WrongShapeIsRefusedWithBothNumbers) {
  EXPECT_EQ(parse_error(reference(), {3, 4, 64}).message(),
            "plan.json: head plan has num_layers 2, model has 3");
  EXPECT_EQ(parse_error(reference(), {2, 8, 64}).message(),
            "plan.json: head plan has num_kv_heads 4, model has 8");
  EXPECT_EQ(parse_error(reference(R"(["local","local","local"])"), kShape).message(),
            "plan.json: kv_head_classification layer 0 has 3 heads, model has 4");
  EXPECT_EQ(parse_error(reference(R"(["local","local","local","local"],[])"), kShape).message(),
            "plan.json: kv_head_classification has 3 layers, model has 2");
  (void)parse_error(reference("7"), kShape);
  (void)parse_error(reference(), {0, 0, 0});
}

TEST(HeadPlan, BadHeadsAreNamedByLayerAndHead) {
  const auto with_class = [](const char* c) {
    return reference(std::string(R"(["local",)") + c + R"(,"local","global"])");
  };
  for (const char* c : {"\"Local\"", "\"\"", "3", "null", "NaN", "[]"}) {
    EXPECT_THAT(parse_error(with_class(c), kShape).message(), HasSubstr("layer 0 head 1: class"));
  }
  for (const char* w : {"-2", "NaN", "-Infinity", "Infinity", "1.5", "1e400", "\"512\"", "true",
                        "1073741825", "9223372036854775808", "-9223372036854775808", "null"}) {
    const std::string text =
        reference(R"(["local","local","local","global"])", std::string("[512,512,") + w + ",-1]");
    EXPECT_THAT(parse_error(text, kShape).message(), HasSubstr("layer 0 head 2: max_distance"))
        << w;
  }
  for (const char* s : {"-1", "NaN", "2.5", "1e99"}) {
    const std::string text =
        reference(R"(["local","local","local","global"])", "[1,1,1,1]",
                  std::string(R"(,"kv_head_sink_size":[[4,4,4,)") + s + "],[4,4,4,4]]");
    EXPECT_THAT(parse_error(text, kShape).message(), HasSubstr("layer 0 head 3: sink"));
  }
  EXPECT_EQ(parse_error(ours(R"("local")", "-1"), kSmall).message(),
            "plan.json: layer 0 head 0: window -1 of a local head is outside 0..1073741824");
  EXPECT_THAT(parse_error(ours(R"("local")", "0", "0"), kSmall).message(),
              HasSubstr("layer 0 head 0: window 0 and sink 0"));
  EXPECT_THAT(parse_error(ours(R"("local_full")"), kSmall).message(),
              HasSubstr("layer 0 head 0: class \"local_full\" is unknown"));
}

TEST(HeadPlan, OurHeaderIsChecked) {
  ASSERT_TRUE(HeadPlan::parse(ours(), "x", kSmall).ok());
  const auto with = [](const char* more) { return ours(R"("local")", "16", "4", more); };
  EXPECT_THAT(parse_error(with(R"(,"windoes":1)"), kSmall).message(),
              HasSubstr("unknown key \"windoes\""));
  EXPECT_EQ(parse_error(with(R"(,"low_precision_middle":{"k":"i8"})"), kSmall).code(),
            Code::kUnimplemented);
  const std::string named = with(R"(,"model_fingerprint":"abc")");
  EXPECT_TRUE(HeadPlan::parse(named, "x", kSmall, "abc").ok());
  EXPECT_TRUE(HeadPlan::parse(named, "x", kSmall, "").ok());
  EXPECT_EQ(parse_error(named, kSmall, "abd").message(),
            "plan.json: head plan is for model abc, this model is abd");
  for (const char* p : {"0", "1.1", "-0.5", "NaN", "\"1\""}) {
    EXPECT_THAT(
        parse_error(with((std::string(R"(,"retrieval_top_p":)") + p).c_str()), kSmall).message(),
        HasSubstr("retrieval_top_p"));
  }
  std::string version = ours();
  version.replace(version.find("\"version\":1"), 11, "\"version\":2");
  EXPECT_THAT(parse_error(version, kSmall).message(), HasSubstr("version 2, known: 1"));
}

TEST(HeadPlan, HostileTextIsAnError) {
  const std::string good = ours();
  for (size_t n = 0; n < good.size(); ++n) (void)parse_error(good.substr(0, n), kSmall);
  for (const char* text : {"", "[]", "null", "{}", "{\"num_layers\":1}", "\xff\xfe", "{}{}"}) {
    (void)parse_error(text, kSmall);
  }
  (void)parse_error(std::string(100000, '['), kSmall);
  (void)parse_error(std::string(static_cast<size_t>(HeadPlan::kMaxFileBytes) + 1, ' '), kSmall);
}

TEST(HeadPlan, NanInsideAStringStaysText) {
  const HeadPlan plan =
      HeadPlan::parse(ours(R"("local")", "16", "4",
                           R"(,"model_fingerprint":"NaN \" Infinity","comment":"NaN")"),
                      "x", kSmall)
          .value();
  EXPECT_EQ(plan.model_fingerprint(), "NaN \" Infinity");
}

TEST(HeadPlan, LoadsFilesAndSaysWhyNot) {
  const auto folder = std::filesystem::temp_directory_path();
  const std::string path = (folder / "rk_head_plan_test.json").string();
  std::ofstream(path) << ours();
  EXPECT_TRUE(HeadPlan::load(path, kSmall).ok());
  std::ofstream(path) << "{";
  EXPECT_THAT(HeadPlan::load(path, kSmall).status().message(), HasSubstr(path));
  std::filesystem::remove(path);
  EXPECT_EQ(HeadPlan::load(path, kSmall).code(), Code::kNotFound);
  EXPECT_FALSE(HeadPlan::load(folder.string(), kSmall).ok());
}

}  // namespace
}  // namespace rk::kv
